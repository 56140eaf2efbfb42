"""The folder as a whole: written or not at all, and checked before anything in it is used."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax

from branchnets import folders
from branchnets.deploy import program, weights
from branchnets.deploy.describe import describe_module
from branchnets.deploy.preprocess import Preprocessing
from branchnets.errors import DeployError
from branchnets.families import family_class
from branchnets.families.study import Slimmed
from branchnets.storage import AnyPath, RemotePath, as_path
from branchnets.version import __version__

FORMAT, FORMAT_VERSION = "branchnets classifier", 1
RECORD, WEIGHTS, PROGRAM = "classifier.json", "weights.safetensors", "model.jaxexport"


def check_folder(folder: str | os.PathLike[str] | RemotePath) -> AnyPath:
    """Where a network will be written; see :func:`branchnets.folders.check`.

    Raises:
      DeployError: it cannot be written, or holds something else.
    """
    return folders.check(folder, _KIND)


def write_folder(
    folder: str | os.PathLike[str] | RemotePath,
    family: str,
    slimmed: Slimmed,
    preprocessing: Preprocessing,
    parent: Mapping[str, Any],
) -> AnyPath:
    """Writes a network as a whole or not at all; see :func:`branchnets.folders.write`.

    Args:
      folder: an older network there is replaced; one with files of others is refused.
      family: the name of the family, which lists the module's parts.
      slimmed: the network and what is known of it.
      preprocessing: of images.
      parent: the run that it comes from.

    Returns:
      The folder.

    Raises:
      DeployError: it cannot be written; what was there before is untouched.
    """
    check_folder(folder)
    files = {
        WEIGHTS: weights.to_bytes(slimmed.variables),
        PROGRAM: program.export_program(slimmed.model, slimmed.variables, preprocessing),
    }
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "branchnets": __version__,
        "jax": jax.__version__,
        "family": family,
        "module": describe_module(slimmed.model, family_class(family).modules),
        **_decision(slimmed),
        "preprocessing": preprocessing.as_dict(),
        "platforms": program.PLATFORMS,
        "parent": dict(parent),
        "files": {name: _fingerprint(data) for name, data in files.items()},
    }
    if both := sorted(set(record) & set(slimmed.record)):
        raise ValueError(f"the record of a network cannot have an entry {both[0]!r} of its own")
    text = json.dumps({**record, **slimmed.record}, indent=2, ensure_ascii=False, allow_nan=False)
    files[RECORD] = f"{text}\n".encode()
    return folders.write(folder, files, _KIND)


def read_record(folder: str | os.PathLike[str] | RemotePath) -> dict[str, Any]:
    """classifier.json, if this version understands it.

    Raises:
      DeployError: no such folder, damaged, or made by a newer version.
    """
    place = as_path(folder)
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DeployError(
            f"{place} holds no network: it has no {RECORD}. python -m branchnets.tools.slim "
            "writes such a folder."
        ) from None
    except (OSError, ValueError) as error:
        raise DeployError(f"{place / RECORD} cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DeployError(f"{place / RECORD} does not describe a network of branchnets.")
    version = record.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DeployError(
            f"{place} was made by branchnets {record.get('branchnets')}, in version {version} of "
            f"the format; this one, {__version__}, reads up to version {FORMAT_VERSION}. Upgrade "
            "branchnets."
        )
    return record


def read_file(folder: AnyPath, record: Mapping[str, Any], name: str) -> bytes:
    """The contents of one of the folder's files, checked against its fingerprint.

    Raises:
      DeployError: missing, cut short or changed.
    """
    file = as_path(folder) / name
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise DeployError(f"{file} is missing; copy the folder again, as a whole.") from None
    except OSError as error:
        raise DeployError(f"{file} cannot be read: {error.strerror}.") from error
    try:
        expected = record["files"][name]
        size, checksum = expected["bytes"], expected["sha256"]
    except (LookupError, TypeError):
        raise DeployError(f"{RECORD} says nothing of {name}; the folder is damaged.") from None
    if len(data) < size:
        raise DeployError(f"{file} is cut short: {len(data):,} of {size:,} bytes; copy it again.")
    if _fingerprint(data) != {"bytes": size, "sha256": checksum}:
        raise DeployError(f"{file} is damaged or of another network; copy the folder again.")
    return data


def _decision(slimmed: Slimmed) -> dict[str, Any]:
    outputs, thresholds = list(slimmed.outputs), slimmed.thresholds
    if thresholds is None:
        return {"outputs": outputs, "classes": outputs, "thresholds": None,
                "decision": "the output with the largest score"}  # fmt: skip
    if len(outputs) == 1:
        return {"outputs": outputs, "class": outputs[0], "threshold": float(thresholds[0]),
                "decision": "yes where score >= threshold"}  # fmt: skip
    return {"outputs": outputs, "classes": outputs, "thresholds": [float(t) for t in thresholds],
            "decision": "for each output, yes where its score >= its threshold"}  # fmt: skip


def _fingerprint(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _files_of(place: AnyPath) -> set[str] | None:
    """The names of the files of a network, of any version, or None if there is none."""
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
        return {RECORD, *record["files"]} if record["format"] == FORMAT else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


_KIND = folders.Kind("network", DeployError, _files_of)
