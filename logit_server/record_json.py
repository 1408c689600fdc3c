"""Decoded records as JSON, built column by column: no object and no call for each record or stored class.

An answer is a list of pieces that is the same for every record but for its numbers and names. Each kind of
piece is put into the list with one slice, and the numbers are written by orjson, an array at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from cache_builder.format import Cache

_INVALID = b',"valid":false,"top":[],"lse":null,"tail_mass":null'

_Column = bytes | list[bytes]
"""A piece that is the same in all records, or that of each."""


class RecordJson:
    """Writes the records of one cache; what is said of classes and labels is kept."""

    def __init__(self, cache: Cache, names: Mapping[int, str]) -> None:
        """``names``: of the classes that have one."""
        self._cache = cache
        self._names = names
        self._classes: dict[int, bytes] = {}
        self._labels: dict[int, bytes] = {}

    def written(
        self,
        view: int,
        rows: NDArray[np.integer[Any]],
        records: NDArray[np.uint8],
        *,
        top: int | None = None,
        between: bytes = b",",
    ) -> bytes:
        """Records uint8 [n, record_bytes], those of ``rows`` [n] in ``view``, with ``between`` between them.

        Each is what :class:`DecodedRecord` says, with at most ``top`` of its classes.
        """
        if not len(rows):
            return b""
        classes, values, lse = self._cache.stored(records)
        mass = np.exp(values - lse[:, None])
        # Quantised logits may sum to a hair above one.
        tail = np.maximum(0.0, 1.0 - mass.sum(axis=1, dtype=np.float64))
        shown = slice(None, top)
        head: list[_Column] = [
            b'{"row":',
            _numbers(rows),
            b',"sample_id":',
            [orjson.dumps(sample_id) for sample_id in self._cache.ids.at(rows)],
            b',"view":%d' % view,
            [self._label(label) for label in self._cache.labels[rows].tolist()],
        ]
        body: list[_Column] = [b',"valid":true,"top":[']
        columns = (classes[:, shown].T, values[:, shown].T, mass[:, shown].T)
        for of_class, logits, probabilities in zip(*columns, strict=True):
            named: _Column = [self._class(index) for index in of_class.tolist()]
            body += [named, _numbers(logits), b',"probability":', _numbers(probabilities), b"},"]
        if len(body) > 1:
            body[-1] = b"}"
        body += [b'],"lse":', _numbers(lse), b',"tail_mass":', _numbers(tail)]
        pieces = _woven([*head, *body, b"}" + between], len(rows))
        stride, start = len(head) + len(body) + 1, len(head)
        for place in np.flatnonzero(~np.isfinite(lse)).tolist():
            first = place * stride + start
            pieces[first : first + len(body)] = [_INVALID, *[b""] * (len(body) - 1)]
        pieces[-1] = b"}"
        return b"".join(pieces)

    def _class(self, index: int) -> bytes:
        if (known := self._classes.get(index)) is None:
            name = orjson.dumps(self._names.get(index))
            known = self._classes[index] = b'{"class_id":%d,"name":%b,"logit":' % (index, name)
        return known

    def _label(self, label: int) -> bytes:
        if (known := self._labels.get(label)) is None:
            number, name = orjson.dumps(None if label < 0 else label), orjson.dumps(self._names.get(label))
            known = self._labels[label] = b',"label":%b,"label_name":%b' % (number, name)
        return known


def _woven(columns: list[_Column], count: int) -> list[bytes]:
    """The pieces of ``count`` records one after the other, of columns that are given piece by piece."""
    pieces = [b""] * (len(columns) * count)
    for place, column in enumerate(columns):
        pieces[place :: len(columns)] = [column] * count if isinstance(column, bytes) else column
    return pieces


def _numbers(column: NDArray[Any]) -> list[bytes]:
    """Each number of a column [n] as JSON, with all digits of its 64 bits: clients compare exactly."""
    wide = np.ascontiguousarray(column, np.float64 if column.dtype.kind == "f" else None)
    written = orjson.dumps(wide, option=orjson.OPT_SERIALIZE_NUMPY)
    return written[1:-1].split(b",")
