"""Made-up photographs as JPEG files, in folders and as a data set of tfds.

What decoding costs depends on an image's size and on how many bytes its details take. Natural
images have amplitudes that fall as 1 / frequency (Field, "Relations between the statistics of
natural images and the response properties of cortical cells", 1987); these have the same spectrum
with random phases, colours that change slowly, and a few rectangles whose edges are sharp. At
quality 92 they take 108 kB on average, as ImageNet's training images do (138 GB
for 1.28 million).
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from branchnets.data.stored.example import example_class
from branchnets.data.stored.tfrecord import masked_crc

#: (height, width): about 500x375, on either side, and some smaller and larger ones.
SIZES = ((375, 500), (375, 500), (500, 375), (333, 500), (500, 500), (400, 600), (240, 320))
QUALITY = 92
CLASSES = 10


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]; the same for the same arguments."""
    random = np.random.RandomState(seed)
    light = _falling(random, height, width, 1.0)
    colours = np.stack([_falling(random, height, width, 2.0) for _ in range(3)], -1)
    image = 120 + 42 * light[..., None] + 18 * colours
    for _ in range(6):
        top, left = (random.randint(0, side) for side in (height, width))
        bottom, right = top + height // random.randint(2, 20), left + width // random.randint(2, 20)
        image[top:bottom, left:right] = 0.6 * image[top:bottom, left:right] + random.randint(
            0, 100, 3
        )
    return np.clip(image, 0, 255).astype(np.uint8)


def _falling(random: np.random.RandomState, height: int, width: int, power: float) -> np.ndarray:
    """Noise of amplitude 1 / frequency^power, of mean 0 and standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((height, width))) / frequency**power
    noise = np.fft.irfft2(spectrum, (height, width))
    return noise / noise.std()


def jpegs(count: int) -> list[bytes]:
    """`count` files, of the sizes of `SIZES` in turn."""
    found = []
    for i in range(count):
        stream = io.BytesIO()
        image = Image.fromarray(picture(i, *SIZES[i % len(SIZES)]))
        image.save(stream, "JPEG", quality=QUALITY)
        found.append(stream.getvalue())
    return found


def write_folder(root: Path, files: Sequence[bytes]) -> list[str]:
    """Writes root/CLASS/NUMBER.jpg; returns the paths relative to root, in order."""
    names = [f"{i % CLASSES:03d}/{i:05d}.jpg" for i in range(len(files))]
    for name, data in zip(names, files, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return names


def write_tfds(root: Path, files: Sequence[bytes]) -> Path:
    """Writes a data set "made" of one split "train" in one TFRecord file, as tfds lays it out."""
    directory = root / "made" / "1.0.0"
    directory.mkdir(parents=True)
    with (directory / "made-train.tfrecord-00000-of-00001").open("wb") as stream:
        for i, data in enumerate(files):
            example = example_class()()
            feature = example.features.feature
            feature["image"].bytes_list.value.append(data)
            feature["label"].int64_list.value.append(i % CLASSES)
            record = example.SerializeToString()
            length = struct.pack("<Q", len(record))
            for part in (length, record):
                stream.write(part + struct.pack("<I", masked_crc(part)))
    split = {
        "name": "train",
        "shardLengths": [str(len(files))],
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {"name": "made", "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    core = "tensorflow_datasets.core.features"
    features = {
        "image": {"pythonClassName": f"{core}.image_feature.Image", "image": {"dtype": "uint8"}},
        "label": {
            "pythonClassName": f"{core}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(CLASSES)},
        },
    }
    whole = {
        "pythonClassName": f"{core}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    (directory / "dataset_info.json").write_text(json.dumps(info))
    (directory / "features.json").write_text(json.dumps(whole))
    return directory
