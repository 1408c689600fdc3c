"""Which row of a dump is which sample, where the dump does not say: by an order that the user states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets.folder import IMG_EXTENSIONS

from cache_builder.datasets import ImageSource, left_out_of
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.interchange.id_lists import read_ids
from cache_builder.interchange.id_search import find_samples

_FOLDERS = "imagefolder:"
_FILE = "file:"
_CHOICES = (
    "--order torchvision (torchvision's ImageFolder), --order path (kdcache's ids) or --order file:LIST"
)


@dataclass(frozen=True)
class RowOrder:
    """The samples of a dump's rows."""

    indices: NDArray[np.int64]
    """Of each row its sample in the data set."""
    told: str
    """How they were found, for people."""
    by_position: bool = True
    """Whether that was told by no ids of the dump's own."""


def listed_ids(order: str | None, rows: int) -> list[str] | None:
    """The ids that ``--order file:LIST`` names; None for another order. :class:`ConfigError` for no order."""
    if order is None or order in ("torchvision", "path"):
        return None
    if not order.startswith(_FILE) or order == _FILE:
        raise ConfigError(f"--order {order}: expected torchvision, path or file:LIST")
    return read_ids(f"--order {order}", Path(order.removeprefix(_FILE)), rows)


def order_rows(order: str | None, rows: int, source: ImageSource, where: str) -> RowOrder:
    """The sample of each of ``rows`` rows without ids, in the order that was stated.

    None is no order: it is enough only where nobody could mean another one. Raises :class:`ConfigError`
    where one must be stated, :class:`DataError` for a number of rows that is not that of the samples.
    """
    ids = listed_ids(order, rows)
    if ids is not None:
        indices = find_samples(ids, source.ids, f"--order {order}", source.spec, with_prefix=True)
        return RowOrder(indices, f"as {order} lists them")
    if order == "torchvision":
        return RowOrder(_checked(_torchvision(source), rows, source, where, order), "in torchvision's order")
    indices = np.arange(len(source))
    if order is None:
        _check_unmistakable(indices, rows, source, where)
    return RowOrder(_checked(indices, rows, source, where, order), "in the order of the data set's ids")


def plausible_orders(rows: int, source: ImageSource) -> dict[str, NDArray[np.int64]]:
    """The sample of each row by every order that has as many samples, under the names of ``--order``."""
    found = {"path": np.arange(len(source))}
    if _has_class_folders(source):
        found["torchvision"] = _torchvision(source)
    return {name: indices for name, indices in found.items() if len(indices) == rows}


def torchvision_order(ids: Sequence[str]) -> NDArray[np.int64]:
    """Indices of the ids ``class/.../name`` as torchvision's ImageFolder goes through them.

    Class by class, in a class folder by folder, a folder's own files before those of its folders; files
    whose endings it does not read are left out.
    """
    places = [place for place, sample_id in enumerate(ids) if sample_id.lower().endswith(IMG_EXTENSIONS)]
    return np.array(sorted(places, key=lambda place: _place_in_walk(ids[place])), np.int64)


def _place_in_walk(sample_id: str) -> tuple[str, str, str]:
    folder, _, name = sample_id.rpartition("/")
    return folder.partition("/")[0], folder, name


def _has_class_folders(source: ImageSource) -> bool:
    return source.spec.startswith(_FOLDERS) and source.labels is not None


def _torchvision(source: ImageSource) -> NDArray[np.int64]:
    if source.spec.startswith("torchvision:"):
        return np.arange(len(source))
    if not _has_class_folders(source):
        raise ConfigError(
            f"--order torchvision: {source.spec} has no class folders, which torchvision's ImageFolder goes "
            "through; use --order path or --order file:LIST"
        )
    return torchvision_order(source.ids)


def _checked(
    indices: NDArray[np.int64], rows: int, source: ImageSource, where: str, order: str | None
) -> NDArray[np.int64]:
    if len(indices) == rows:
        return indices
    by = f"by --order {order}" if order else "and no ids"
    left_out = left_out_of(source)
    raise DataError(
        f"{where} has {rows:,} rows {by}, {source.spec} {len(indices):,} samples"
        f"{_not_read(indices, source)}: which row is which sample? give --ids or --order file:LIST"
        + (f" (the data set leaves out {left_out})" if left_out else "")
    )


def _not_read(indices: NDArray[np.int64], source: ImageSource) -> str:
    missing = len(source) - len(indices)
    return f" that torchvision reads ({missing:,} have endings that it does not)" if missing else ""


def _check_unmistakable(indices: NDArray[np.int64], rows: int, source: ImageSource, where: str) -> None:
    """Raise :class:`ConfigError` where torchvision would give the rows to other samples."""
    other = plausible_orders(rows, source).get("torchvision")
    if other is None or len(indices) != rows or np.array_equal(indices, other):
        return
    row = int(np.argmax(indices != other))
    raise ConfigError(
        f"{where} has no ids, and the order of its rows decides: row {row} (counted from 0) of {source.spec} "
        f"is {source.ids[int(other[row])]!r} as torchvision's ImageFolder goes through it and "
        f"{source.ids[row]!r} by its sorted paths; say {_CHOICES} (one path or id a line), or --ids"
    )
