"""An image file's bytes as an array of one shape: decode a part of it and resize that.

A part is chosen from the image's size alone, so that a JPEG can be decoded at a half, a quarter or
an eighth of its size where that still leaves the part at least as large as what is asked for.
Everything here is on the host and starts no device.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from branchnets.data.images import MODES, eight_bits
from branchnets.errors import DataError

#: Uniform numbers that a random resized crop may need.
DRAWS = 40
_TRIES = 10

_ORIENTATION = 0x0112  # EXIF tag


class Box(NamedTuple):
    """A part of an upright image, in whole pixels."""

    left: int
    top: int
    width: int
    height: int


#: (height, width) of an upright image -> the part that is wanted.
Choose = Callable[[int, int], Box]


def decoder_name(setting: str) -> str:
    """The decoder that `data.decoder` stands for on this machine: "opencv" or "pillow".

    Args:
      setting: "opencv", "pillow", or "auto": OpenCV where it is installed.

    Raises:
      DataError: OpenCV is asked for and cannot be imported.
    """
    if setting == "pillow":
        return "pillow"
    try:
        _opencv()
    except ImportError as error:
        if setting == "auto":
            return "pillow"
        raise DataError(
            f"data.decoder=opencv needs OpenCV ({error}): pip install 'branchnets[opencv]', or set "
            "data.decoder=pillow"
        ) from error
    return "opencv"


@functools.cache
def _opencv() -> Any:
    import cv2

    cv2.setNumThreads(1)  # the parallelism is over images
    return cv2


def random_crop(
    height: int,
    width: int,
    area: Sequence[float],
    ratio: Sequence[float],
    draws: np.ndarray,
) -> Box:
    """A random part of an image: "Inception-style" crop (Szegedy et al. 2015, section 6).

    Its share of the area is uniform in `area`, the logarithm of width / height uniform in that of
    `ratio`, its place uniform; after ten that do not fit, the largest centred part whose ratio is
    in range is taken. That is torchvision's ``RandomResizedCrop``.

    Args:
      height: of the image, pixels.
      width: likewise.
      area: (smallest, largest) share of the area.
      ratio: (smallest, largest) width / height.
      draws: float [DRAWS], uniform in [0, 1).
    """
    low, high = (math.log(value) for value in ratio)
    for i in range(_TRIES):
        share, shape, down, across = draws[4 * i : 4 * i + 4]
        wanted = height * width * (area[0] + share * (area[1] - area[0]))
        aspect = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(across * (width - w + 1)), int(down * (height - h + 1)), w, h)
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = min(width, round(height * ratio[1]))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def centre_crop(height: int, width: int, size: Sequence[int], fraction: float = 1.0) -> Box:
    """The middle of an image: the shorter side resized to size / fraction, then `size` cropped.

    Args:
      height: of the image, pixels.
      width: likewise.
      size: (H, W) of what is asked for; where H and W differ, "shorter" is measured against them.
      fraction: in (0, 1]; 1 is the largest part with the right ratio of sides.
    """
    scale = fraction * min(height / size[0], width / size[1])
    h = min(max(round(size[0] * scale), 1), height)
    w = min(max(round(size[1] * scale), 1), width)
    return Box((width - w) // 2, (height - h) // 2, w, h)


def reduction(box: Box, size: Sequence[int]) -> int:
    """By how much a JPEG may be shrunk while it is decoded: 8, 4, 2 or 1; never below `size`."""
    fits = min(box.height // size[0], box.width // size[1])
    return next((factor for factor in (8, 4, 2) if factor <= fits), 1)


def decode(data: bytes, image_shape: Sequence[int], choose: Choose, decoder: str) -> np.ndarray:
    """A part of an image, resized.

    Turned upright as its EXIF or XMP data says; colours become grey by their luma, grey equal
    colours, CMYK colours, and 16-bit grey 8-bit, as :mod:`branchnets.data.images` does it.
    Shrinking averages (Pillow: triangle filter, OpenCV: area), enlarging is bilinear.

    Args:
      data: the bytes of an image file.
      image_shape: (H, W, C); C is 1, 3 or 4.
      choose: gives the part.
      decoder: "opencv" (for JPEG; other formats and CMYK are Pillow's everywhere) or "pillow".

    Returns:
      uint8 [H, W, C].

    Raises:
      DataError: it cannot be read.
      MemoryError: there is too little.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if decoder == "opencv" and _plain_jpeg(image, data) and image_shape[2] in (1, 3):
                return _with_opencv(image, data, image_shape, choose)
            return _with_pillow(image, image_shape, choose)
    except Image.UnidentifiedImageError:
        raise DataError("no image that can be read") from None
    except MemoryError:  # says nothing of the file
        raise
    # The decoders raise whatever they stumble over in a damaged file.
    except Exception as error:
        raise DataError(f"an image that cannot be read: {error}") from error


def _plain_jpeg(image: Image.Image, data: bytes) -> bool:
    # OpenCV fills up what is missing of a file cut short; Pillow refuses it, so it gets those.
    return (
        image.format == "JPEG" and image.mode in ("L", "RGB") and data.rfind(b"\xff\xd9", -4096) > 0
    )


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) once it is turned; nothing is decoded."""
    width, height = image.size
    return (width, height) if _orientation(image) in (5, 6, 7, 8) else (height, width)


def _orientation(image: Image.Image) -> Any:
    """1 is upright. Pillow finds it in EXIF, or else in XMP, which OpenCV does not look at."""
    return image.getexif().get(_ORIENTATION, 1)


def _upright(pixels: np.ndarray, orientation: Any) -> np.ndarray:
    """A view of [H, W(, C)] pixels, turned as ``ImageOps.exif_transpose`` does it."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    across = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::down, ::across]


def _with_opencv(
    image: Image.Image, data: bytes, image_shape: Sequence[int], choose: Choose
) -> np.ndarray:
    cv2 = _opencv()
    height, width, channels = image_shape
    box = choose(*_upright_size(image))
    factor = reduction(box, (height, width))
    kind = "COLOR" if channels == 3 else "GRAYSCALE"
    flag = f"IMREAD_{kind}" if factor == 1 else f"IMREAD_REDUCED_{kind}_{factor}"
    flags = getattr(cv2, flag) | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise DataError("OpenCV gives no image")
    pixels = _upright(pixels, _orientation(image))
    left, top, right, bottom = _reduced(box, factor, pixels.shape[1], pixels.shape[0])
    part = pixels[top:bottom, left:right]
    if part.shape[:2] != (height, width):
        shrinks = part.shape[0] >= height and part.shape[1] >= width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        part = cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=how)
    part = part[..., ::-1] if channels == 3 else part[..., None]  # OpenCV has blue first
    return np.ascontiguousarray(part)


def _with_pillow(image: Image.Image, image_shape: Sequence[int], choose: Choose) -> np.ndarray:
    height, width, channels = image_shape
    if channels not in MODES:
        raise DataError(f"image files have 1, 3 or 4 channels, not {channels}")
    box = choose(*_upright_size(image))
    factor = reduction(box, (height, width)) if image.format == "JPEG" else 1
    if factor > 1:
        full = image.size
        image.draft(None, (full[0] // factor, full[1] // factor))
        factor = round(max(full) / max(image.size))
    image.load()
    upright = eight_bits(ImageOps.exif_transpose(image))
    if upright.mode != MODES[channels]:
        upright = upright.convert(MODES[channels])
    edges = _reduced(box, factor, *upright.size)
    resized = upright.resize((width, height), Image.Resampling.BILINEAR, box=edges)
    return np.asarray(resized, np.uint8).reshape(height, width, channels)


def _reduced(box: Box, factor: int, width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a part in an image decoded at 1 / factor of its size."""
    left, top = box.left // factor, box.top // factor
    right = min(-(-(box.left + box.width) // factor), width)
    bottom = min(-(-(box.top + box.height) // factor), height)
    return min(left, right - 1), min(top, bottom - 1), right, bottom
