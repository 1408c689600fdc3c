"""Top-K lists in a Parquet file, such as ``kdcache export`` writes. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache_builder.format.errors import ConfigError, DataError
from cache_builder.interchange.settings import DumpRequest
from cache_builder.interchange.sources.contract import NO_SCALE, NO_TAIL_SHAPE
from cache_builder.interchange.sources.even_tail import even_tail

_ID = ("sample_id", "id", "key")
_INDICES = ("top_ids", "indices", "index")
_LOGITS, _LOGPROBS, _PROBS = ("top_logits", "logits"), ("logprobs", "log_probs"), ("probs", "probabilities")


class TopKDump:
    """The lists in memory, 8 K bytes a record; rows in the order in which the ids first appear."""

    own_views = False
    stored_precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def __init__(self, request: DumpRequest) -> None:
        if request.classes is None:
            raise ConfigError("lists of the top K do not tell the number of classes: add --classes")
        self.classes = request.classes
        table = _Table(request)
        self.ids: Sequence[str] | None
        self.ids, rows = table.rows()
        views = table.views()
        self.views = int(views.max()) + 1
        self._place = np.full((self.views, len(self.ids)), -1, np.int64)
        self._place[views, rows] = np.arange(len(rows))
        self._check_places(len(rows))
        self._index, self._probabilities = table.lists()
        self.top_k: int | None = int(self._index.shape[1])
        self.labels = table.labels(rows, len(self.ids))
        self.lacks = [
            NO_TAIL_SHAPE,
            NO_SCALE,
            *([] if self.labels is not None else ["labels"]),
        ]

    def __len__(self) -> int:
        return self._place.shape[1]

    def block(self, views: range, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """``log(p / p_tail)``, 0 outside the top K."""
        places = self._place[views.start : views.stop, rows].reshape(-1)
        logits = even_tail(self._index[places], self._probabilities[places], self.classes)
        return logits.reshape(len(views), len(rows), self.classes)

    def _check_places(self, found: int) -> None:
        missing = np.argwhere(self._place < 0)
        if missing.size:
            view, row = missing[0]
            assert self.ids is not None
            raise DataError(
                f"{len(missing)} (view, sample) pairs have no line, the first is view {view}, "
                f"{self.ids[row]!r}: every sample needs every view"
            )
        if found != self._place.size:
            raise DataError("a sample occurs more than once in a view: is there a column view?")


class _Table:
    """The columns of the file under whatever names they have."""

    def __init__(self, request: DumpRequest) -> None:
        from cache_builder.datasets.arrow import column_names, read_columns

        self._path = request.source
        names = set(column_names(request.source))
        self._id = self._one_of(_ID, names, "of the sample")
        self._indices = self._one_of(_INDICES, names, "of class ids")
        self._values = self._one_of((*_PROBS, *_LOGPROBS, *_LOGITS), names, "of probs, logprobs or logits")
        self._lse = "lse" if "lse" in names else None
        if self._values in _LOGITS and self._lse is None:
            raise DataError(
                f"{self._path}: logits of the top K without a column lse do not say what mass lies outside "
                "them: add lse (log-sum-exp of all logits), or give probs or logprobs"
            )
        wanted = {self._id, self._indices, self._values, "lse", "view", "label"} & names
        self._table: Any = read_columns(request.source, sorted(wanted))
        self._names = names
        if not self._table.num_rows:
            raise DataError(f"{self._path} has no rows")

    def rows(self) -> tuple[list[str], NDArray[np.int64]]:
        """The different ids, and the row of each line."""
        import pyarrow as pa

        column = self._table.column(self._id)
        if column.null_count:
            raise DataError(f"{self._path}: {column.null_count} lines have no {self._id}")
        coded = column.cast(pa.string()).combine_chunks().dictionary_encode()
        coded = coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded
        return coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int64)

    def views(self) -> NDArray[np.int64]:
        """The view of each line; 0 where there is no such column."""
        if "view" not in self._names:
            return np.zeros(self._table.num_rows, np.int64)
        column = self._table.column("view")
        views = column.to_numpy().astype(np.int64) if not column.null_count else np.array([-1])
        if views.min() < 0:
            raise DataError(f"{self._path}: column view has negative or missing numbers")
        return views

    def lists(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Class ids and probabilities [lines, K]."""
        index, values = self._matrix(self._indices), self._matrix(self._values).astype(np.float64)
        if index.shape != values.shape:
            raise DataError(f"{self._path}: {self._indices} and {self._values} differ in length")
        if self._values in _LOGITS:
            values = np.exp(values - self._table.column(self._lse).to_numpy()[:, None])
        elif self._values in _LOGPROBS:
            values = np.exp(values)
        return index.astype(np.int32), values.astype(np.float32)

    def labels(self, rows: NDArray[np.int64], samples: int) -> NDArray[np.int32] | None:
        """The label of each sample, where there is such a column."""
        if "label" not in self._names:
            return None
        found = self._table.column("label").cast("int64").fill_null(-1).to_numpy()
        labels = np.full(samples, -1, np.int32)
        labels[rows] = found
        if (labels[rows] != found).any():
            raise DataError(f"{self._path}: a sample has different labels in different lines")
        return labels

    def _matrix(self, name: str) -> NDArray[np.generic]:
        column = self._table.column(name).combine_chunks()
        column = column.chunk(0) if hasattr(column, "num_chunks") else column
        if column.null_count:
            raise DataError(f"{self._path}: {column.null_count} lines have no {name}")
        lengths = np.unique(column.value_lengths().to_numpy()) if hasattr(column, "value_lengths") else [0]
        if len(lengths) != 1 or not lengths[0]:
            raise DataError(f"{self._path}: {name} must hold lists of one length, found {list(lengths[:4])}")
        flat: NDArray[np.generic] = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(-1, int(lengths[0]))

    def _one_of(self, wanted: tuple[str, ...], names: set[str], what: str) -> str:
        found = [name for name in wanted if name in names]
        if not found:
            columns = ", ".join(sorted(names))
            raise DataError(f"{self._path} has no column {what} ({', '.join(wanted)}), only {columns}")
        return found[0]


def open_topk_parquet(request: DumpRequest) -> TopKDump:
    """Raises :class:`DataError` for a table that lacks a column or a record."""
    if not request.source.is_file():
        raise DataError(f"{request.source} does not exist or is no file: expected a Parquet file")
    return TopKDump(request)
