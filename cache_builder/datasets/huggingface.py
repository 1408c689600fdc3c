"""Data sets that Hugging Face's ``datasets`` saved to disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_builder.datasets.decoding import decoded_sample, read_image_file
from cache_builder.datasets.given_classes import in_given_order
from cache_builder.datasets.labels import Labelled
from cache_builder.datasets.options import split_options
from cache_builder.datasets.pixels import NEWEST
from cache_builder.datasets.source import Sample
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.frozen import Decoding
from cache_builder.format.ids import DecimalIds

_STATE, _SPLITS = "state.json", "dataset_dict.json"


class HuggingFaceSource:
    """``hf:PATH[:SPLIT]``: a folder that ``save_to_disk`` wrote; images are bytes in it, or files it names.

    Sample id = position in the split, unless ``?id=COLUMN`` names a column of unique ids. Image = the column
    of images, label = the column of class labels, else one called ``label``; options ``image=COLUMN`` and
    ``label=COLUMN`` where there are several (``label=`` reads none), ``classes=FILE`` or ``classes=N``
    (classes that the column names are put in the order of FILE). The rows stay on disk, mapped into memory.
    """

    reads_files = True
    side: int | None = None
    mirrors = True
    decoding: Decoding = NEWEST

    def __init__(self, argument: str) -> None:
        self.spec = f"hf:{argument}"
        location, options = split_options("hf", argument, ("image", "label", "id", "classes"))
        if not location:
            raise ConfigError("hf needs a folder that save_to_disk wrote: write hf:PATH or hf:PATH:SPLIT")
        data = _load(self.spec, _split_folder(self.spec, location))
        if not len(data):
            raise DataError(f"{self.spec} has no rows")
        columns = _Columns(self.spec, data.features, options)
        self._image = columns.image()
        self.ids: Sequence[str] = _ids(self.spec, data, columns.id())
        self.class_names: tuple[str, ...] | None
        self.labels: NDArray[np.int32] | None
        self.class_names, self.labels = _labels(self.spec, data, columns.label(), options.get("classes"))
        self._data = _undecoded(data, self._image)

    def __len__(self) -> int:
        return len(self._data)

    def read(self, index: int) -> Sample:
        """Decode one row's image; errors name the sample."""
        name = f"of sample {self.ids[index]!r} of {self.spec}"
        try:
            value = self._data[index][self._image]
        except Exception as error:  # Arrow's errors for damaged files are of many kinds
            raise DataError(f"cannot read image {name}: {error}") from error
        content = value.get("bytes") if isinstance(value, Mapping) else value
        if content:
            return decoded_sample(content, name, self.decoding)
        path = value.get("path") if isinstance(value, Mapping) else None
        if not path:
            raise DataError(f"cannot read image {name}: the row holds neither bytes nor a path")
        return read_image_file(Path(path), f" {name}", self.decoding)


class _Columns:
    """Which column holds what, by the options or by the kinds of the columns."""

    def __init__(self, spec: str, features: Mapping[str, Any], options: dict[str, str]) -> None:
        self._spec = spec
        self._features = features
        self._options = options

    def image(self) -> str:
        """The column of images."""
        asked = self._asked("image")
        found = [asked] if asked else self._of_kind("Image")
        if len(found) != 1:
            raise ConfigError(
                f"{self._spec} has {len(found) or 'no'} columns of images among {', '.join(self._features)}: "
                "say which with ?image=COLUMN"
            )
        return found[0]

    def label(self) -> str | None:
        """The column of labels."""
        if "label" in self._options:
            return self._asked("label")
        found = self._of_kind("ClassLabel")
        if len(found) == 1 or "label" in self._features:
            return "label" if "label" in self._features else found[0]
        if found:
            raise ConfigError(
                f"{self._spec} has several columns of labels, {', '.join(found)}: "
                "say which with ?label=COLUMN (?label= takes none)"
            )
        return None

    def id(self) -> str | None:
        """The column of ids that was asked for."""
        return self._asked("id")

    def _asked(self, what: str) -> str | None:
        column = self._options.get(what)
        if column and column not in self._features:
            raise ConfigError(
                f"{self._spec} has no column {column!r} for {what}, only {', '.join(self._features)}"
            )
        return column or None

    def _of_kind(self, kind: str) -> list[str]:
        return [name for name, feature in self._features.items() if type(feature).__name__ == kind]


def _split_folder(spec: str, location: str) -> Path:
    """The folder of one split."""
    path, split = Path(location).expanduser(), ""
    if not path.exists() and ":" in location:
        folder, _, split = location.rpartition(":")
        path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"{spec}: {path} does not exist or is not a folder")
    if (path / _SPLITS).exists():
        splits = _split_names(spec, path)
        if split not in splits and len(splits) != 1:
            raise ConfigError(
                f"{spec}: say which split, as in hf:{path}:{splits[0]}; it has {', '.join(splits)}"
            )
        path, split = path / (split or splits[0]), ""
    if split or not (path / _STATE).exists():
        what = f"has no split {split!r}" if split else f"holds no {_STATE}"
        raise DataError(f"{spec}: {path} {what}: expected a folder that datasets' save_to_disk wrote")
    return path


def _split_names(spec: str, path: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads((path / _SPLITS).read_text())["splits"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{spec}: {path / _SPLITS} cannot be read: {error}") from error


def _load(spec: str, folder: Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(f"{spec} needs Hugging Face's datasets: pip install 'kdcache[hf]'") from error
    if not any(folder.glob("*.arrow")):
        raise DataError(f"{spec}: {folder} cannot be opened: it holds no .arrow file, so no rows")
    try:
        return datasets.load_from_disk(str(folder), keep_in_memory=False)
    except Exception as error:  # json, Arrow and operating system errors alike
        raise DataError(f"{spec}: {folder} cannot be opened: {error}") from error


def _undecoded(data: Any, image: str) -> Any:
    """Only the images, as bytes or paths: the digest is of the bytes, and decoding is ours."""
    import datasets

    alone = data.select_columns([image]).with_format(None)
    kind = data.features[image]
    return (
        alone.cast_column(image, datasets.Image(decode=False)) if isinstance(kind, datasets.Image) else alone
    )


def _column(data: Any, name: str) -> Any:
    """A column as Arrow has it, in the order of the rows."""
    return data.select_columns([name]).with_format("arrow")[:][name]


def _ids(spec: str, data: Any, column: str | None) -> Sequence[str]:
    if column is None:
        return DecimalIds(len(data))
    from cache_builder.datasets import arrow

    return arrow.ids_of(_column(data, column), f"{spec}, column {column!r}")


def _labels(spec: str, data: Any, column: str | None, classes: str | None) -> Labelled:
    if column is None:
        return None, None
    from cache_builder.datasets import arrow

    where = f"{spec}, column {column!r}"
    names = getattr(data.features[column], "names", None)
    if names is None:
        return arrow.labels_of(_column(data, column), where, classes)
    labels = arrow.numbers_of(_column(data, column), where, len(names))
    return in_given_order(where, tuple(names), labels, classes)
