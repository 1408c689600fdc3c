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

    Each is what :class:`DecodedRecord` says, with at most ``top`` of its classes. As plain dicts: a model of
    each stored class takes ten times the time of all the rest.
    """
    index, values, lse = served.cache.stored(records)
    mass = np.exp(values - lse[:, None])
    # Quantised logits may sum to a hair above one.
    tail = np.maximum(0.0, 1.0 - mass.sum(axis=1, dtype=np.float64))
    labels, names = served.cache.labels[rows], served.class_names
    columns = (rows, labels, np.isfinite(lse), index[:, :top], values[:, :top], mass[:, :top], lse, tail)
    return [
        {
            "row": row,
            "sample_id": served.cache.ids[row],
            "view": view,
            "label": None if label < 0 else label,
            "label_name": names.get(label),
            "valid": valid,
            "top": [
                {"class_id": c, "name": names.get(c), "logit": value, "probability": probability}
                for c, value, probability in zip(classes, logits, share, strict=True)
            ]
            if valid
            else [],
            "lse": total if valid else None,
            "tail_mass": left if valid else None,
        }
        for row, label, valid, classes, logits, share, total, left in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]


def json_of(
    served: ServedCache, records: list[dict[str, Any]], counts: NDArray[np.int64] | None = None
) -> bytes:
    """:class:`DecodedRecords` as JSON, :class:`CountedRecords` where there are ``counts``."""
    counted = {} if counts is None else {"counts": counts.tolist()}
    return orjson.dumps({"cache_id": served.cache_id, "records": records} | counted)
