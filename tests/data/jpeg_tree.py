"""Small trees of JPEG files, and their streamed splits, for tests of streamed input."""

import io
import os
import time

import numpy as np
from PIL import Image

from branchnets.data.stored.records import FileRecords, StreamedSplit


def scene(seed, height=60, width=80, channels=3):
    """Smooth colours with an edge and a little noise: uint8 [H, W, C]."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (4, 5, channels)).astype(np.uint8)
    planes = [
        np.asarray(
            Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC)
        )
        for c in range(channels)
    ]
    image = np.stack(planes, -1).astype(int)
    image[:, width // 2 :] += 20
    return np.clip(image + random.randint(-3, 4, image.shape), 0, 255).astype(np.uint8)


def encoded(pixels, kind="JPEG", mode=None, **options):
    """The bytes of an image file."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    stream = io.BytesIO()
    image = image if mode is None else image.convert(mode)
    image.save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return stream.getvalue()


def write_tree(root, classes, per_class, seed=0, name="{}.jpg"):
    """root/CLASS/0.jpg ... of several sizes; returns the paths relative to root, and labels."""
    paths, labels = [], []
    for label, folder in enumerate(classes):
        (root / folder).mkdir(parents=True)
        for i in range(per_class):
            seed += 1
            pixels = scene(seed, 40 + seed % 3 * 20, 50 + seed % 4 * 10)
            paths.append(f"{folder}/{name.format(i)}")
            (root / paths[-1]).write_bytes(encoded(pixels))
            labels.append(label)
    return paths, np.array(labels, np.int32)


def split_of(root, paths, labels, size=16):
    return StreamedSplit(FileRecords(root, paths, labels), (size, size, 3))


def shared_memory():
    """The names of shared memory that there is on this machine."""
    return {name for name in os.listdir("/dev/shm") if name.startswith("psm_")}


def left_in_memory(before):
    """What has been there since a moment ago and was not `before`; other programs come and go."""
    left = shared_memory() - before
    deadline = time.monotonic() + 5
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left &= shared_memory()
    return left
