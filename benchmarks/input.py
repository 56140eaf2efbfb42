"""What input costs: images a second of one core where it is streamed, its share of a step else.

    python -m benchmarks.input                       # both
    python -m benchmarks.input --images=400 --sizes=160,224 --skip-step

Streamed: rows of batches as training and evaluation decode them (benchmarks.made_images says what
of), in this process and on one core; and through one worker process, everything counted that it and
the trainer spend. The clock is processor time, the paths take turns, and the quickest round counts,
so that other work on the machine matters little.

Resident: the input of Coded ResNeXt-29 on CIFAR-10 as its config has it (crop, flip, RandAugment),
compiled alone, beside the whole training step of that network on ready images.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import numpy as np

from benchmarks import made_images, models, timing, train_step, variants
from branchnets import data
from branchnets.data.device.augment import Augment
from branchnets.data.stored.records import FileRecords, Records, StreamedSplit
from branchnets.data.stored.tfds import TfdsRecords
from branchnets.data.streamed.decode import decoder_name
from branchnets.data.streamed.rows import EvalRows, Part, Reading, TrainRows
from branchnets.data.streamed.workers import Chunks, Rows
from branchnets.engine.records.logging import format_table
from branchnets.errors import DataError

MODEL = "coded_resnext29_10x11d_cifar10"
BATCH = 32
WORKER_IMAGES = 4096  # enough that what starting a process costs, which varies, is little beside
WORKER_ROUNDS = 2
CROP = ((0.08, 1.0), (3 / 4, 4 / 3))
#: Images a second: the paper's on eight TPU v2 cores (Table 4), and what other slices of eight
#: would take if throughput went up as the peak in bfloat16 does: 180, 420, 8 x 197 and 8 x 918
#: TFLOP/s by Google Cloud's published product figures.
SLICES = {
    "v2-8, the paper": 447,
    "v3-8": 447 * 420 / 180,
    "v5e-8": 447 * 8 * 197 / 180,
    "v6e-8": 447 * 8 * 918 / 180,
}


def paths(folder: Records, records: Records, size: int) -> Iterator[tuple[str, Rows]]:
    """(name, rows) of what is measured."""
    decoders = ["pillow"]
    try:
        decoders.insert(0, decoder_name("opencv"))
    except DataError:
        timing.say("OpenCV is not installed: Pillow alone is measured")

    def reading(source: Records, decoder: str) -> Reading:
        split = StreamedSplit(source, (size, size, 3))
        return Reading(split, split.image_shape, made_images.CLASSES, decoder, skip=False)

    for decoder in decoders:
        yield f"training, folder, {decoder}", TrainRows(reading(folder, decoder), Part(16), 0, CROP)
    yield (
        f"training, TFRecord, {decoders[0]}",
        TrainRows(reading(records, decoders[0]), Part(16), 0, CROP),
    )
    for decoder in decoders:
        yield (
            f"evaluation, folder, {decoder}",
            EvalRows(reading(folder, decoder), Part(16), crop_fraction=0.875),
        )


def in_process(
    measured: Mapping[str, Rows], images: int, rounds: int
) -> dict[str, tuple[float, ...]]:
    """Sorted processor seconds of an image, of every round of `images`; the paths take turns."""

    def run(rows: Rows) -> None:
        for number in range(images // 16):
            rows[number]

    steps = {name: partial(run, rows) for name, rows in measured.items()}
    times = timing.in_turn(steps, rounds, warmup=1, clock=timing.CLOCKS["processor"])
    return {
        name: tuple(sorted(seconds / (images // 16 * 16) for seconds in each))
        for name, each in times.items()
    }


def through_a_worker(rows: TrainRows, images: int) -> float:
    """Processor seconds of an image, the worker's and the trainer's; its start is taken out."""

    def spent(chunks: int) -> float:
        before = os.times()
        started = Chunks(rows, 0, workers=1)
        for number, _ in enumerate(started):
            if number == chunks:
                break
        started.close()
        after = os.times()
        names = ("user", "system", "children_user", "children_system")
        return sum(getattr(after, name) - getattr(before, name) for name in names)

    few, many = 8, 8 + images // 16
    return (spent(many) - spent(few)) / ((many - few) * 16)


def streamed(sizes: Sequence[int], images: int, rounds: int) -> dict[str, dict[str, float]]:
    """ "path, size" -> images a second of one core in the quickest round, the median, the slowest.

    Other work on the machine only ever makes a round slower, also by processor time.
    """
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, BRANCHNETS_CACHE=name):
        root = Path(name)
        files = made_images.jpegs(images)
        timing.say(f"{len(files)} images of {np.mean([len(f) for f in files]) / 1e3:.0f} kB")
        labels = np.arange(len(files)) % made_images.CLASSES
        folder = FileRecords(
            root / "folder", made_images.write_folder(root / "folder", files), labels
        )
        records = TfdsRecords(made_images.write_tfds(root, files), "train")
        for size in sizes:
            measured = dict(paths(folder, records, size))
            for path, seconds in in_process(measured, images, rounds).items():
                found[f"{path}, {size}"] = {
                    "images_per_s": 1 / seconds[0],
                    "median": 1 / statistics.median(seconds),
                    "least": 1 / seconds[-1],
                }
            first = next(iter(measured.values()))
            assert isinstance(first, TrainRows)
            rate = max(1 / through_a_worker(first, WORKER_IMAGES) for _ in range(WORKER_ROUNDS))
            found[f"the first through a worker process, {size}"] = {"images_per_s": rate}
    return found


def resident(rounds: int) -> dict[str, float]:
    """Processor seconds of the resident input and of the step that it feeds, batch 32."""
    variant = variants.parse(MODEL)
    shape = variant.entry.image_shape
    step = train_step.compile_model(models.Case(variant, shape, None, BATCH, "float32"))
    random = np.random.RandomState(0)
    # 1/f images, not white noise: what Equalize and AutoContrast do depends on the values.
    images = np.stack([made_images.picture(i, *shape[:2]) for i in range(512)])
    split = data.Split(images, random.randint(0, 10, len(images)))
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    dataset = data.Dataset("made", tuple("0123456789"), {"train": split}, mean, std)
    times: dict[str, Callable[[], Any]] = {"step": step.run}
    for name, augment in {
        "input": Augment(4, True, 3, 4.0),
        "input without RandAugment": Augment(4, True),
    }.items():
        inputs = data.ResidentInput(split, dataset, augment, BATCH, seed=0)
        arrays = inputs.arrays(0)
        compiled = jax.jit(inputs.batch)
        key = jax.random.key(0)
        times[name] = partial(_wait, compiled, arrays, np.int32(0), key)
    measured = timing.in_turn(times, rounds, clock=timing.CLOCKS["processor"])
    return {name: statistics.median(seconds) for name, seconds in measured.items()}


def _wait(function: Callable[..., Any], *arguments: Any) -> None:
    jax.block_until_ready(function(*arguments))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.input", allow_abbrev=False)
    options.add_argument("--images", type=int, default=320, help="images made (%(default)s)")
    options.add_argument("--sizes", default="160", help="sides, with commas (%(default)s)")
    options.add_argument("--rounds", type=int, default=5, help="timed rounds (%(default)s)")
    options.add_argument("--skip-step", action="store_true", help="streamed input alone")
    options.add_argument("--skip-stream", action="store_true", help="resident input alone")
    options.add_argument("--json", action="store_true", help="print JSON")
    given = options.parse_args(argv)
    sizes = [int(size) for size in given.sizes.split(",")]
    document: dict[str, Any] = {}
    if not given.skip_stream:
        document["streamed"] = streamed(sizes, given.images, given.rounds)
        rate = document["streamed"][f"the first through a worker process, {sizes[0]}"]
        document["cores"] = {
            name: math.ceil(wanted / rate["images_per_s"]) for name, wanted in SLICES.items()
        }
    if not given.skip_step:
        document["resident"] = resident(given.rounds)
    print(json.dumps(document, indent=2) if given.json else _render(document, sizes[0]))
    return 0


def _render(document: dict[str, Any], size: int) -> str:
    parts = []
    if "streamed" in document:
        rows = [
            (path, each["images_per_s"], each.get("median"), each.get("least"))
            for path, each in document["streamed"].items()
        ]
        parts.append(format_table(rows, ("path", "images/s a core", "median", "least")))
        cores = [(n, round(SLICES[n]), count) for n, count in document["cores"].items()]
        parts.append(format_table(cores, ("slice", "images/s", f"host cores at {size}")))
    if "resident" in document:
        found = document["resident"]
        share = [
            (name, 1000 * seconds, 100 * seconds / found["step"]) for name, seconds in found.items()
        ]
        parts.append(format_table(share, (f"{MODEL}, batch {BATCH}", "ms", "% of the step")))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
