"""Records as JSON, for people: the stored classes with names, logits and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
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
    served: ServedCache, view: int, rows: NDArray[np.integer[Any]], records: NDArray[np.uint8]
) -> list[DecodedRecord]:
    """Decode records uint8 [n, record_bytes], which are those of ``rows`` [n] in ``view``."""
    index, values, lse = served.cache.stored(records)
    mass = np.exp(values - lse[:, None])
    columns = (rows, index, values, mass, lse)
    return [
        _decoded(served, view, *record)
        for record in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _decoded(
    served: ServedCache,
    view: int,
    row: int,
    classes: list[int],
    values: list[float],
    mass: list[float],
    lse: float,
) -> DecodedRecord:
    label = int(served.cache.labels[row])
    valid = bool(np.isfinite(lse))
    stored = zip(classes, values, mass, strict=True)
    return DecodedRecord(
        row=row,
        sample_id=served.cache.ids[row],
        view=view,
        label=None if label < 0 else label,
        label_name=served.class_name(label),
        valid=valid,
        top=[
            StoredClass(class_id=c, name=served.class_name(c), logit=value, probability=probability)
            for c, value, probability in (stored if valid else ())
        ],
        lse=lse if valid else None,
        # Quantised logits may sum to a hair above one.
        tail_mass=max(0.0, 1.0 - sum(mass)) if valid else None,
    )
