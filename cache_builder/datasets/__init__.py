"""Data sets by spec ``kind:argument``.

To add one: a class with ``ImageSource``'s members, a line below, and its form in
``names.DATA_KINDS`` for the help. One of your own needs no line: ``package.module:Name:argument``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import copy
from importlib.util import find_spec
from pathlib import Path

from cache_builder.console.dotted import failure, find_in_working_directory, import_dotted, is_dotted
from cache_builder.console.names import unknown_name
from cache_builder.datasets.cifar import open_cifar10, open_cifar100
from cache_builder.datasets.digits import open_digits
from cache_builder.datasets.huggingface import HuggingFaceSource
from cache_builder.datasets.imagefolder import ImageFolder
from cache_builder.datasets.options import split_options
from cache_builder.datasets.pixels import NEWEST
from cache_builder.datasets.shards import find_shards
from cache_builder.datasets.source import (
    ArraySource,
    ImageSample,
    ImageSource,
    LimitedSource,
    Sample,
    Source,
    decoding_of,
    left_out_of,
)
from cache_builder.datasets.tables import TableSource, open_csv, open_parquet
from cache_builder.datasets.torchvision_sets import TorchvisionSource
from cache_builder.datasets.webdataset import WebDataset
from cache_builder.format.errors import ConfigError, KDCacheError
from cache_builder.format.frozen import Decoding

DATASETS: dict[str, Callable[[str], ImageSource]] = {
    "imagefolder": ImageFolder,
    "webdataset": WebDataset,
    "hf": HuggingFaceSource,
    "csv": open_csv,
    "parquet": open_parquet,
    "torchvision": TorchvisionSource,
    "digits": open_digits,
    "cifar10": open_cifar10,
    "cifar100": open_cifar100,
}

_MEMBERS = ("spec", "ids", "labels", "class_names", "reads_files", "side", "mirrors", "read", "__len__")
_DECODING = (ImageFolder, WebDataset, HuggingFaceSource, TableSource, TorchvisionSource)

__all__ = [
    "DATASETS",
    "ArraySource",
    "ImageFolder",
    "ImageSample",
    "ImageSource",
    "LimitedSource",
    "Sample",
    "Source",
    "check_recorded",
    "check_there",
    "decoded_by",
    "decoding_of",
    "left_out_of",
    "open_source",
]


def open_source(spec: str, decoding: Decoding = NEWEST) -> ImageSource:
    """Open a data set, e.g. ``imagefolder:/data/train``, ``digits:train``, ``cifar10:/data:test``.

    ``decoding``: the rule by which files become pixels; for the samples of a cache, the one it records.
    Raises :class:`ConfigError` for an unknown kind and :class:`DataError` for a missing or empty one.
    """
    kind, _, argument = spec.partition(":")
    bare, mark, options = spec.partition("?")
    if bare in DATASETS:  # options of a kind that needs no path
        kind, argument = bare, mark + options
    if kind not in DATASETS:
        if _is_own(spec):
            return _opened_own(spec, decoding)
        if spec and Path(spec).exists():
            raise ConfigError(f"data {spec!r} names no kind: write {_likely_kind(Path(spec))}:{spec}")
        raise ConfigError(
            unknown_name("data set kind", kind, DATASETS) + " (write KIND:PATH, or package.module:Name)"
        )
    return _told_decoding(DATASETS[kind](argument), decoding)


def check_recorded(spec: str) -> None:
    """Raise :class:`ConfigError` where a manifest's spec names code: a cache may be anybody's.

    What calls it is called with an argument from the same manifest, so that only the user may name it.
    """
    if spec.partition(":")[0] not in DATASETS and _is_own(spec):
        raise ConfigError(
            f"the cache names a data set that is not one of kdcache, {spec}: code that a cache names is not "
            f"run; if you know it, name it yourself: --data {spec}"
        )


def _is_own(spec: str) -> bool:
    """Whether a spec names somebody's own data set: its module is there, or it can be nothing else."""
    module_name, name, *_ = [*spec.split(":"), ""]
    if not is_dotted(f"{module_name}:{name}"):
        return False
    find_in_working_directory()
    return "." in module_name or module_name in sys.modules or find_spec(module_name) is not None


def _opened_own(spec: str, decoding: Decoding) -> ImageSource:
    """``package.module:Name`` called without arguments, ``package.module:Name:argument`` with one."""
    module_name, name, *argument = spec.split(":", 2)
    factory = import_dotted(f"{module_name}:{name}", "data set")
    try:
        source = factory(*argument)
    except KDCacheError:
        raise
    except Exception as error:
        raise ConfigError(f"data set {spec!r} cannot be opened: {failure(error)}") from error
    lacking = [member for member in _MEMBERS if not hasattr(source, member)]
    if lacking:
        raise ConfigError(
            f"data set {spec!r} is a {type(source).__name__} without {', '.join(lacking)}: expected the "
            "members of cache_builder.datasets.ImageSource"
        )
    return _told_decoding(source, decoding)


def _told_decoding(source: ImageSource, decoding: Decoding) -> ImageSource:
    if decoding_of(source) is not None:
        source.decoding = decoding  # type: ignore[attr-defined]  # only those that decode have it
    return source


def check_there(spec: str) -> None:
    """Raise what :func:`open_source` would for a data set that is not there.

    For commands that open it later: what takes long to go through, picture folders and shards, is not.
    """
    kind, _, argument = spec.partition(":")
    if kind in _SLOW_TO_OPEN:
        pattern, _ = split_options(kind, argument, known=None)
        if _SLOW_TO_OPEN[kind](pattern):
            return
    open_source(spec)


def _is_folder(path: str) -> bool:
    return Path(path).expanduser().is_dir()


_SLOW_TO_OPEN: dict[str, Callable[[str], object]] = {"imagefolder": _is_folder, "webdataset": find_shards}


def decoded_by(source: ImageSource, decoding: Decoding) -> ImageSource:
    """The same data set with its files decoded by a rule; a copy where it has another one.

    Data sets of other classes than those here stay as they are.
    """
    if decoding_of(source) in (None, decoding):
        return source
    if isinstance(source, LimitedSource):
        return LimitedSource(decoded_by(source.whole, decoding), len(source))
    if not isinstance(source, _DECODING):
        return source
    copied = copy(source)
    copied.decoding = decoding
    return copied


def _likely_kind(path: Path) -> str:
    """What a bare path was probably meant as."""
    if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        return "hf"
    suffixes = {".tar": "webdataset", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
    return suffixes.get(path.suffix, "imagefolder")
