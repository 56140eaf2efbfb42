"""Image files as arrays of one shape; for data sets in folders, and for single files."""

from __future__ import annotations

import collections
import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from branchnets.data.prepare import framed
from branchnets.errors import DataError
from branchnets.storage import AnyPath, RemotePath, as_path, is_url

#: What counts as an image in a folder, by the end of its name in lower case.
EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".pbm", ".pgm", ".ppm"),
)

#: Pillow's mode for so many channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}

_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")


def list_images(folder: str | os.PathLike[str] | RemotePath) -> list[AnyPath]:
    """The image files below a folder, sorted by path; see :func:`list_names`."""
    root = as_path(folder)
    return [root / name for name in list_names(root)]


def list_names(folder: str | os.PathLike[str] | RemotePath) -> list[str]:
    """The image files below a folder as paths relative to it, with forward slashes, sorted.

    Hidden files and folders are left out. Links are followed; a folder that links lead to several
    times, or to itself, is listed once.

    Raises:
      DataError: there is no such folder, or it cannot be listed.
    """
    root = as_path(folder)
    if isinstance(root, RemotePath):
        names = root.names()
        if not names:
            raise DataError(f"there is no folder {root}, or nothing is in it")
        return [n for n in names if _is_image(n.rpartition("/")[2]) and "/." not in f"/{n}"]
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    found: list[str] = []
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for place, folders, names in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(place).relative_to(root).as_posix()
        above = "" if relative == "." else f"{relative}/"
        found += [above + name for name in names if _is_image(name)]
    return sorted(found)


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def open_image(
    source: str | os.PathLike[str] | RemotePath | IO[bytes], name: str | None = None
) -> Image.Image:
    """A decoded image, turned upright where the camera says so.

    Args:
      source: a path, a URL, or an open file.
      name: what messages call it; the path by default.

    Raises:
      DataError: it cannot be read; the message has its path.
    """
    path = source if name is None else name
    try:
        if isinstance(source, RemotePath) or (isinstance(source, str) and is_url(source)):
            source = io.BytesIO(as_path(source).read_bytes())
        with Image.open(source) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise DataError(f"there is no image {path}") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"{path} is no image that can be read") from None
    # Pillow's decoders raise whatever they stumble over in a damaged file.
    except Exception as error:
        raise DataError(f"image {path} cannot be read: {error}") from error


def native_shape(image: Image.Image) -> tuple[int, int, int]:
    """(H, W, C) of an image as it is: C is 1 for grey and else 3."""
    return image.height, image.width, 1 if image.mode in _GREY else 3


def fit(
    image: Image.Image, image_shape: Sequence[int], content_shape: Sequence[int] | None = None
) -> np.ndarray:
    """An image with the size and the channels that are asked for.

    Colours become grey by their luma, grey becomes equal colours. Where the size differs, the
    largest centred part with the right ratio of sides is resized (bilinear, antialiased when
    shrinking): that is, the shorter side is resized and the longer one cropped.

    Args:
      image: from :func:`open_image`.
      image_shape: (H, W, C); C is 1, 3 or 4.
      content_shape: (h, w, C) of the image itself where zeros surround it, as ``data.pad_to`` does
        in training, or where only its middle is taken (``data.crop_size``); ``image_shape`` by
        default.

    Returns:
      uint8 [H, W, C].
    """
    height, width, channels = image_shape if content_shape is None else content_shape
    if channels not in MODES:
        raise DataError(f"image files have 1, 3 or 4 channels, not {channels}")
    image = eight_bits(image).convert(MODES[channels])
    if image.size != (width, height):
        scale = max(width / image.width, height / image.height)
        across, down = width / scale, height / scale
        left, top = (image.width - across) / 2, (image.height - down) / 2
        box = (left, top, left + across, top + down)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    array = np.array(image, np.uint8).reshape(1, height, width, channels)
    return framed(array, image_shape[0], image_shape[1])[0]


def read_image(path: str | os.PathLike[str], image_shape: Sequence[int]) -> np.ndarray:
    """An image file as uint8 [H, W, C] of the given shape; see :func:`fit`.

    Raises:
      DataError: it cannot be read; the message has its path.
    """
    return fit(open_image(path), image_shape)


def stack(
    read: Callable[[int], np.ndarray],
    shape: Sequence[int],
    track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> np.ndarray:
    """Images that are read many at a time: Pillow decodes outside Python's lock, services answer.

    Args:
      read: gives image `i`, from 0 to n-1.
      shape: (n, H, W, C).
      track: goes through as many items, and shows progress.

    Returns:
      uint8 [n, H, W, C].
    """
    out = np.empty(shape, np.uint8)

    def put(i: int) -> None:
        out[i] = read(i)

    with ThreadPoolExecutor() as pool:
        collections.deque(track(pool.map(put, range(shape[0]))), maxlen=0)
    return out


def refit(
    images: np.ndarray, image_shape: Sequence[int], content_shape: Sequence[int] | None = None
) -> np.ndarray:
    """The images of an array, uint8 [n, H, W, C], made to fit another shape; see :func:`fit`."""
    content = image_shape if content_shape is None else content_shape
    if images.shape[1:] == tuple(content):
        return framed(images, image_shape[0], image_shape[1])
    if images.shape[-1] not in MODES:
        raise DataError(f"images have 1, 3 or 4 channels, not {images.shape[-1]}")
    planes = images[..., 0] if images.shape[-1] == 1 else images
    fitted = (
        fit(Image.fromarray(np.ascontiguousarray(image)), image_shape, content) for image in planes
    )
    return np.stack(list(fitted))


def eight_bits(image: Image.Image) -> Image.Image:
    """An image with the 16-bit values of grey scaled, which Pillow would clip at 255."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image, np.int64) // 257
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
