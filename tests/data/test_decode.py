"""Decoding a part of an image file, with both decoders."""

import functools
import io

import numpy as np
import pytest
from jpeg_tree import encoded, scene
from PIL import Image, ImageOps

from branchnets.data.images import fit
from branchnets.data.streamed import decode
from branchnets.data.streamed.decode import Box, centre_crop, random_crop, reduction
from branchnets.errors import DataError

pytest.importorskip("cv2")
DECODERS = ("opencv", "pillow")


def middle(data, size, decoder, fraction=1.0, channels=3):
    choose = functools.partial(centre_crop, size=(size, size), fraction=fraction)
    return decode.decode(data, (size, size, channels), choose, decoder)


def distance(a, b):
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).mean()


def test_a_random_crop_takes_the_area_and_the_ratio_that_were_drawn():
    draws = np.zeros(decode.DRAWS)
    draws[:4] = 0.5, 0.5, 0.0, 1 - 1e-9  # 0.54 of the area, ratio 1, at the top right
    box = random_crop(120, 200, (0.08, 1.0), (3 / 4, 4 / 3), draws)
    side = round((0.54 * 120 * 200) ** 0.5)
    assert box == Box(200 - side, 0, side, side)
    draws[:4] = 1 - 1e-9, 0.5, 0.0, 0.0  # a square of all the area fits nowhere: drawn again
    draws[4:8] = 0.0, 1 - 1e-9, 1 - 1e-9, 0.0
    box = random_crop(120, 200, (0.08, 1.0), (3 / 4, 4 / 3), draws)
    assert box == Box(0, 120 - 38, 51, 38)


def test_crops_lie_within_the_image_and_cover_their_ranges():
    random = np.random.RandomState(0)
    shares, ratios = [], []
    for _ in range(2000):
        box = random_crop(90, 120, (0.2, 0.6), (3 / 4, 4 / 3), random.random_sample(decode.DRAWS))
        assert 0 <= box.left and box.left + box.width <= 120
        assert 0 <= box.top and box.top + box.height <= 90
        shares.append(box.width * box.height / 10800)
        ratios.append(box.width / box.height)
    assert 0.19 < min(shares) < 0.22 and 0.58 < max(shares) < 0.61
    assert 0.73 < min(ratios) < 0.78 and 1.28 < max(ratios) < 1.36
    assert abs(np.mean(shares) - 0.4) < 0.01 and abs(np.mean(np.log(ratios))) < 0.02


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (10, 100, Box(43, 0, 13, 10)),  # too wide: all of the height, ratio 4/3
        (100, 10, Box(0, 43, 10, 13)),
    ],
)
def test_what_fits_nowhere_becomes_the_middle(height, width, box):
    draws = np.full(decode.DRAWS, 0.999)
    assert random_crop(height, width, (1.0, 1.0), (3 / 4, 4 / 3), draws) == box


def test_evaluation_takes_the_middle_of_the_resized_shorter_side():
    assert centre_crop(256, 256, (224, 224), 0.875) == Box(16, 16, 224, 224)
    assert centre_crop(500, 375, (224, 224), 0.875) == Box(23, 86, 328, 328)
    assert centre_crop(30, 60, (10, 20)) == Box(0, 0, 60, 30)
    assert centre_crop(1, 1, (8, 8), 0.5) == Box(0, 0, 1, 1)


def test_a_jpeg_is_never_shrunk_below_what_is_asked_for():
    assert [reduction(Box(0, 0, w, 100), (24, 24)) for w in (23, 24, 47, 48, 96, 999)] == [
        *(1, 1, 1, 2, 4, 4)
    ]
    assert reduction(Box(0, 0, 999, 999), (8, 8)) == 8


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoding_at_a_fraction_of_the_size_gives_the_same_picture(decoder, monkeypatch):
    data = encoded(scene(1, 240, 320))
    choose = lambda height, width: Box(37, 21, 203, 150)  # noqa: E731
    quick = decode.decode(data, (32, 32, 3), choose, decoder)
    monkeypatch.setattr(decode, "reduction", lambda box, size: 1)
    assert distance(quick, decode.decode(data, (32, 32, 3), choose, decoder)) < 2


@pytest.mark.parametrize(("kind", "mode"), [
    ("JPEG", None), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", None), ("PNG", "P"), ("PNG", "RGBA"),
])  # fmt: skip
def test_decoders_agree_with_each_other_and_with_images_in_memory(kind, mode):
    data = encoded(scene(2, 90, 70), kind, mode)
    for channels in (1, 3):
        want = fit(Image.open(io.BytesIO(data)), (24, 24, channels))
        for decoder in DECODERS:
            assert distance(middle(data, 24, decoder, channels=channels), want) < 1.5


def test_sixteen_bits_are_scaled_not_clipped():
    grey = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "PNG")
    found = middle(stream.getvalue(), 8, "opencv", channels=1)
    np.testing.assert_array_equal(found[..., 0], grey // 257)


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_image_on_its_side_is_turned_before_its_part_is_chosen(decoder):
    pixels = scene(3, 64, 96)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by 90 degrees
    data = encoded(pixels, exif=exif)
    seen = []

    def choose(height, width):
        seen.append((height, width))
        return Box(4, 50, 32, 40)

    found = decode.decode(data, (40, 32, 3), choose, decoder)
    assert seen == [(96, 64)]
    assert distance(found, np.rot90(pixels, -1)[50:90, 4:36]) < 4


@pytest.mark.parametrize("where", ["EXIF", "XMP"])
def test_decoders_turn_images_as_pillow_does(where):
    plain = encoded(scene(3, 48, 64))
    for orientation in range(1, 9):
        if where == "EXIF":
            exif = Image.Exif()
            exif[0x0112] = orientation
            data = encoded(scene(3, 48, 64), exif=exif)
        else:
            tag = f'tiff:Orientation="{orientation}"'.encode()
            segment = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + tag + b"</x:xmpmeta>"
            data = plain[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big")
            data += segment + plain[2:]
        want = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        choose = lambda height, width: Box(0, 0, width, height)  # noqa: E731
        for decoder in DECODERS:
            found = decode.decode(data, (want.height, want.width, 3), choose, decoder)
            assert distance(found, want) < 1.5


@pytest.mark.parametrize("decoder", DECODERS)
def test_damaged_files_are_refused(decoder):
    data = encoded(scene(4, 200, 200))
    for broken in (b"", b"no image", data[: len(data) // 2], data[:20]):
        with pytest.raises(DataError, match="can(not)? be read"):
            middle(broken, 16, decoder)


def test_small_images_are_enlarged_and_one_pixel_is_enough():
    assert middle(encoded(scene(5, 1, 1)), 8, "opencv").shape == (8, 8, 3)
    flat = np.full((5, 9, 3), 90, np.uint8)
    for decoder in DECODERS:
        assert distance(middle(encoded(flat), 16, decoder, 0.875), 90) < 2


def test_opencv_is_taken_where_it_is_installed(monkeypatch):
    assert decode.decoder_name("auto") == decode.decoder_name("opencv") == "opencv"
    assert decode.decoder_name("pillow") == "pillow"

    def missing():
        raise ImportError("no module named cv2")

    monkeypatch.setattr(decode, "_opencv", missing)
    assert decode.decoder_name("auto") == "pillow"
    with pytest.raises(DataError, match=r"pip install 'branchnets\[opencv\]'"):
        decode.decoder_name("opencv")
