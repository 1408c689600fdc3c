"""Records as JSON, for people: the stored classes with names, logits and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel

from logit_server.served_caches import ServedCache


class StoredClass(BaseModel):
    """A class whose logit the record stores."""

    class_id: int
    name: str | None
    logit: float
    """Raw (before softmax), natural units."""
    probability: float
    """exp(logit - lse): of the softmax over all classes at temperature 1."""


class DecodedRecord(BaseModel):
    """One record. ``valid`` is false for a sample the builder could not read: it has no teacher output."""

    row: int
    sample_id: str
    view: int
    label: int | None
    label_name: str | None
    valid: bool
    top: list[StoredClass]
    """Largest logit first."""
    lse: float | None
    """Log-sum-exp of all logits at temperature 1."""
    tail_mass: float | None
    """Probability of all classes that are not stored one by one."""


class DecodedRecords(BaseModel):
    """The answer to a request for decoded records, in the order of the request."""

    cache_id: str
    records: list[DecodedRecord]


class CountedRecords(DecodedRecords):
    """The same of a cache whose samples have several positions: the records of each, in their order."""

    counts: list[int]
    """How many of the records each asked sample has."""


def decode_records(
    served: ServedCache,
    view: int,
    rows: NDArray[np.integer[Any]],
    records: NDArray[np.uint8],
    top: int | None = None,
) -> list[dict[str, Any]]:
    """Decode records uint8 [n, record_bytes], which are those of ``rows`` [n] in ``view``.

    Each is what :class:`DecodedRecord` says, with at most ``top`` of its classes.
    """
    written = served.record_json.written(view, rows, records, top=top)
    decoded: list[dict[str, Any]] = orjson.loads(b"[" + written + b"]")
    return decoded


def json_of(
    served: ServedCache,
    view: int,
    rows: NDArray[np.integer[Any]],
    records: NDArray[np.uint8],
    counts: NDArray[np.int64] | None = None,
    top: int | None = None,
) -> bytes:
    """:class:`DecodedRecords` as JSON, :class:`CountedRecords` where there are ``counts``."""
    written = served.record_json.written(view, rows, records, top=top)
    counted = b"" if counts is None else b',"counts":' + orjson.dumps(counts.tolist())
    return b'{"cache_id":%b,"records":[%b]%b}' % (orjson.dumps(served.cache_id), written, counted)
