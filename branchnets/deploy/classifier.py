"""Using a folder that :mod:`branchnets.deploy.folder` wrote."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from branchnets.deploy import program, weights
from branchnets.deploy.describe import build_module
from branchnets.deploy.folder import PROGRAM, WEIGHTS, read_file, read_record
from branchnets.deploy.preprocess import Preprocessing
from branchnets.errors import DataError, DeployError, unknown
from branchnets.families import family_class
from branchnets.storage import RemotePath, as_path

FORMS = ("module", "export")
#: Images that are scored at a time; fewer are padded to a power of two, so that few programs are
#: compiled whatever the numbers of images.
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network from a folder, with its decision.

    Attributes:
      record: classifier.json.
      outputs: the name of each score.
      thresholds: output i says yes where its score is at least thresholds[i]; None: the output
        with the largest score is the answer.
      preprocessing: of images.
      forward: uint8 [B, H, W, C] -> float32 [B, outputs].
      model, variables: the module and its variables; None in form "export", which needs neither.

    Example:
      >>> import branchnets
      >>> airplane = branchnets.load_classifier("airplane")            # doctest: +SKIP
      >>> airplane.decide(airplane.scores(images))                     # doctest: +SKIP
    """

    record: Mapping[str, Any]
    outputs: tuple[str, ...]
    thresholds: tuple[float, ...] | None
    preprocessing: Preprocessing
    forward: Callable[[Any], jax.Array]
    model: nn.Module | None = None
    variables: Any = None

    def scores(self, images: Any) -> np.ndarray:
        """Logits, without softmax.

        Args:
          images: uint8 [n, H, W, C], pixels 0..255 of the network's shape, not normalised.

        Returns:
          float32 [n, outputs].

        Raises:
          DataError: images of another type or shape.
        """
        images = np.asarray(images)
        shape = self.preprocessing.image_shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            raise DataError(
                f"the network takes uint8 images of shape [n, {', '.join(map(str, shape))}], not "
                f"{images.dtype} {list(images.shape)}"
            )
        parts = [np.zeros((0, len(self.outputs)), np.float32)]
        for first in range(0, len(images), _BATCH):
            part = images[first : first + _BATCH]
            size = 1 << (len(part) - 1).bit_length()
            padded = np.pad(part, ((0, size - len(part)), (0, 0), (0, 0), (0, 0)))
            parts.append(np.asarray(self.forward(padded))[: len(part)])
        return np.concatenate(parts)

    def decide(self, scores: Any) -> np.ndarray:
        """What the scores mean.

        Args:
          scores: [n, outputs].

        Returns:
          With thresholds, bool [n, outputs]; without, the index of the largest score, int64 [n].
        """
        scores = np.asarray(scores)
        if self.thresholds is None:
            return scores.argmax(axis=-1)
        return scores >= np.asarray(self.thresholds)


def load_classifier(
    folder: str | os.PathLike[str] | RemotePath, form: str = "module"
) -> Classifier:
    """Loads a folder of ``branchnets.slim`` or ``python -m branchnets.tools.slim``.

    Args:
      folder: to read; nothing in it is unpickled.
      form: "module" rebuilds the Flax module and reads the weights; "export" runs the exported
        program, which needs none of the family's code.

    Raises:
      UserError: no such folder, a file that is missing or damaged, weights that do not fit, or a
        folder that a newer version made.
    """
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    place = as_path(folder)
    record = read_record(place)
    try:
        outputs = tuple(map(str, record["outputs"]))
        given = [record["threshold"]] if "threshold" in record else record["thresholds"]
        thresholds = None if given is None else tuple(map(float, given))
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
        family, description = str(record["family"]), record["module"]
    except (LookupError, TypeError, ValueError) as error:
        if isinstance(error, DeployError):
            raise
        raise DeployError(f"classifier.json in {place} lacks or misstates {error}") from error
    if thresholds is not None and len(thresholds) != len(outputs):
        raise DeployError(
            f"classifier.json in {place} has {len(outputs)} outputs, {len(thresholds)} thresholds"
        )
    common = (record, outputs, thresholds, preprocessing)
    if form == "export":
        return Classifier(*common, program.load_program(read_file(place, record, PROGRAM)))
    model = build_module(description, family_class(family).modules)
    if not isinstance(model, nn.Module):
        raise DeployError(f"classifier.json in {place} describes no network")
    data = read_file(place, record, WEIGHTS)
    variables = jax.device_put(weights.from_bytes(data, model, preprocessing.image_shape))
    score = jax.jit(program.score_program(model, preprocessing))
    return Classifier(*common, functools.partial(score, variables), model, variables)
