"""Which image files belong to which split and class, by folders or by lists; no image is read.

    DIR/train/CLASS/*.jpg   DIR/test/CLASS/*.jpg   or   DIR/train.csv   DIR/test.csv

`val` (or `validation`) stands for the validation split where there is a `test`, and for the test
split where there is none, or one without classes (ImageNet's, as it unpacks).
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from branchnets.data.images import EXTENSIONS, list_names
from branchnets.data.stored.records import FileRecords
from branchnets.data.stored.remote import fingerprint
from branchnets.errors import DataError
from branchnets.storage import AnyPath, RemotePath

_VALIDATION = ("val", "validation")
_PATH_COLUMNS = ("path", "filename", "file_name", "file", "image")
_LABEL_COLUMNS = ("label", "class", "class_name")


@dataclass(frozen=True)
class Index:
    """What is in the folders.

    Attributes:
      root: DIR.
      class_names: of the training split, sorted (numbers by value); their order is that of
        the labels.
      splits: "train", "test" and perhaps "validation".
    """

    root: AnyPath
    class_names: tuple[str, ...]
    splits: Mapping[str, FileRecords]


def index(root: AnyPath, class_names: Sequence[str] | None = None) -> Index:
    """Lists classes and files.

    Args:
      root: DIR.
      class_names: of the folders (or the labels of the lists) in label order, where they are known
        beforehand; each must be in the training split.

    Raises:
      DataError: a split or class that is missing or empty; the message says how the files should
        lie.
    """
    places = split_places(root)
    names = classes_of(places["train"]) if class_names is None else tuple(class_names)
    if class_names is not None:
        _check_known(places["train"], names)
    return Index(root, names, {split: _files(place, names) for split, place in places.items()})


def split_places(root: AnyPath) -> dict[str, AnyPath]:
    """The folder or the list of each split; a DataError says how they should lie."""
    found = {name: place for name in ("train", "test") if (place := _place(root, name))}
    validation = next((place for name in _VALIDATION if (place := _place(root, name))), None)
    if validation:
        if "test" in found and not _labelled(found["test"]):
            del found["test"]
        found["validation" if "test" in found else "test"] = validation
    for name in ("train", "test"):
        if name not in found:
            raise DataError(
                f"{root} has no folder {name!r}; images lie in {root}/train/CLASS/ and "
                f"{root}/test/CLASS/ (or val/CLASS/), or are listed in {root}/train.csv and "
                f"{root}/test.csv (or val.csv), lines of path,label"
            )
    return found


def _place(root: AnyPath, name: str) -> AnyPath | None:
    if (root / name).is_dir():
        return root / name
    return root / f"{name}.csv" if (root / f"{name}.csv").is_file() else None


def _is_list(place: AnyPath) -> bool:
    """Whether a place of :func:`split_places` is a list; else it is a folder."""
    return place.is_file()


def classes_of(place: AnyPath) -> tuple[str, ...]:
    """The class names of a split's folder or list, sorted; numbers by their value."""
    if _is_list(place):
        return _sorted({label for _, label in _rows(place)})
    names = _folders(place)
    if not names:
        loose = next((p for p in place.iterdir() if p.name.lower().endswith(EXTENSIONS)), None)
        hint = "" if loose is None else f"; {loose.name} lies there without one"
        raise DataError(f"{place} has no folders; each class has one with its images{hint}")
    return _sorted(names)


def _folders(place: AnyPath) -> list[str]:
    return [p.name for p in place.iterdir() if p.is_dir() and not p.name.startswith(".")]


def _labelled(place: AnyPath) -> bool:
    """Whether it says which class an image is of: a list, or a folder of folders."""
    return _is_list(place) or bool(_folders(place))


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    """By value where all are numbers: labels 0 to 11 stay themselves."""
    names = sorted(names)
    if all(name.isascii() and name.isdecimal() for name in names):
        names.sort(key=int)
    return tuple(names)


def first_image(place: AnyPath) -> AnyPath:
    """Of a split, the first image of its first class."""
    first = classes_of(place)[0]
    if _is_list(place):
        return place.parent / min(path for path, label in _rows(place) if label == first)
    folder = place / first
    names = list_names(folder)
    if not names:
        raise DataError(f"{folder} has no images")
    return folder / names[0]


def _check_known(train: AnyPath, names: tuple[str, ...]) -> None:
    missing = sorted(set(names) - set(classes_of(train)))
    if missing:
        raise DataError(
            f"{train} lacks {len(missing)} of the {len(names)} classes, {missing[0]!r} for one; "
            "a part of the classes is a data set of its own, data.name=folder"
        )


def _files(place: AnyPath, class_names: tuple[str, ...]) -> FileRecords:
    if strange := sorted(set(classes_of(place)) - set(class_names)):
        raise DataError(f"{place} has a class {strange[0]!r} that the training split has not")
    if _is_list(place):
        number = {name: label for label, name in enumerate(class_names)}
        rows = sorted((number[label], path) for path, label in _rows(place))
        return FileRecords(
            place.parent, [path for _, path in rows], np.array([label for label, _ in rows])
        )
    names: list[str] = []
    counts = []
    listed = _by_class(place) if isinstance(place, RemotePath) else None
    for name in class_names:
        # A test split may lack a class.
        if listed is not None:
            found = listed.get(name, [])
        else:
            found = list_names(place / name) if (place / name).is_dir() else []
        if not found and place.name == "train":
            raise DataError(f"{place / name} has no images")
        names += [f"{name}/{file}" for file in found]
        counts.append(len(found))
    if not names:
        raise DataError(f"{place} has no images: the split is empty")
    return FileRecords(place, names, np.repeat(np.arange(len(class_names)), counts))


def _by_class(place: RemotePath) -> dict[str, list[str]]:
    """The images of every class by one listing of all: far fewer requests than folder by folder."""
    found: dict[str, list[str]] = {}
    for name in list_names(place):
        folder, _, inner = name.partition("/")
        found.setdefault(folder, []).append(inner)
    return found


def _rows(file: AnyPath) -> tuple[tuple[str, str], ...]:
    """(path, label) of every line; a first line that names no image says which column is which."""
    return _read_rows(file, fingerprint(file))


@functools.lru_cache(maxsize=4)  # asked for several times, and a list may have millions of lines
def _read_rows(file: AnyPath, version: str) -> tuple[tuple[str, str], ...]:
    del version  # another list where the file has changed
    try:
        stream = io.StringIO(file.read_bytes().decode("utf-8-sig"), newline="")
        lines = [line for line in csv.reader(stream) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as lines of path,label: {error}") from error
    path, label = 0, 1
    if lines and not lines[0][0].strip().lower().endswith(EXTENSIONS):
        header = [cell.strip().lower() for cell in lines.pop(0)]
        path, label = _column(header, _PATH_COLUMNS, file), _column(header, _LABEL_COLUMNS, file)
    rows = []
    for number, line in enumerate(lines, 1):
        if len(line) <= max(path, label) or not line[path].strip() or not line[label].strip():
            raise DataError(f"{file}: image {number} has no path or no label: {','.join(line)!r}")
        rows.append((line[path].strip(), line[label].strip()))
    if not rows:
        raise DataError(f"{file} lists no images: the split is empty")
    return tuple(rows)


def _column(header: list[str], names: tuple[str, ...], file: AnyPath) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise DataError(
        f"{file} starts with {','.join(header)!r}, which is neither an image and its label nor "
        f"names a column {names[0]!r} (or {', '.join(names[1:])})"
    )
