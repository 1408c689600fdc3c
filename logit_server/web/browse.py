"""Finding samples: by a part of their id, by class, by what the teacher got wrong or was unsure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cache_builder.format.ids import SampleIds
from logit_server.served_caches import ServedCache
from logit_server.web.top_classes import UNKNOWN, TopClasses
from logit_server.wire import QueryKeys

ROWS_SHOWN = 25
"""Samples on a page."""
MOST_MATCHES = 20_000
"""Ids that a search looks at; a part of an id that more have is told so."""

_IDS_AT_ONCE = 2**14


class Search(QueryKeys):
    """What somebody looks for. Everything that is given must hold."""

    id: str = Field("", max_length=1000)
    """A part of the sample's id, in upper and lower case as it is."""
    category: str = Field("", max_length=1000)
    """Number or name of a class, or a part of its name."""
    by: Literal["label", "teacher"] = "label"
    """Whether that is the sample's label or the teacher's best class in view 0."""
    only: Literal["all", "wrong"] = "all"
    """``wrong``: samples whose label is not the teacher's best class in view 0."""
    order: Literal["rows", "uncertain"] = "rows"
    """``uncertain``: the smaller the probability of the teacher's best class, the earlier."""
    page: int = Field(1, ge=1, le=10**9)
    """Counted from 1."""

    @property
    def needs_answers(self) -> bool:
        """Whether the teacher's best classes decide what is found."""
        by_answer = bool(self.category) and self.by == "teacher"
        return by_answer or self.only == "wrong" or self.order == "uncertain"

    @property
    def is_given(self) -> bool:
        """Whether anything is looked for at all."""
        return bool(self.id or self.category) or self.needs_answers


@dataclass(frozen=True)
class Found:
    """A page of what was found."""

    rows: NDArray[np.int64]
    """Of this page, in order."""
    total: int
    """Samples on all pages."""
    is_cut: bool
    """Whether more ids match than were looked at."""
    pages: int


def find(served: ServedCache, top: TopClasses | None, search: Search) -> Found:
    """The samples that fit; of those that depend on the teacher's answers, as far as these are known.

    ``top``: the answers, which a search that needs them must have. For a thread: it may look at every row.
    """
    rows, is_cut = _of_ids(served, search.id)
    if search.category:
        rows = rows[np.isin(_classes_of(served, top, search)[rows], _named(served, search.category))]
    if search.needs_answers and top is not None:
        # Those that the builder could not read have no answer either.
        rows = rows[top.classes[rows] != UNKNOWN]
        if search.only == "wrong":
            labels = served.cache.labels[rows]
            rows = rows[(labels >= 0) & (labels != top.classes[rows])]
        if search.order == "uncertain":
            rows = rows[np.argsort(top.probabilities[rows], kind="stable")]
    first = (search.page - 1) * ROWS_SHOWN
    return Found(rows[first : first + ROWS_SHOWN], len(rows), is_cut, max(1, -(-len(rows) // ROWS_SHOWN)))


def _classes_of(served: ServedCache, top: TopClasses | None, search: Search) -> NDArray[np.int32]:
    return top.classes if search.by == "teacher" and top is not None else served.cache.labels


def _named(served: ServedCache, text: str) -> list[int]:
    """The classes that a number, a name or a part of a name means."""
    if text.isascii() and text.isdigit():
        return [int(text)] if int(text) < served.manifest.classes else []
    names = [name.casefold() for name in served.cache.class_names or ()]
    wanted = text.strip().casefold()
    exact = [index for index, name in enumerate(names) if name == wanted]
    return exact or [index for index, name in enumerate(names) if wanted in name]


def _of_ids(served: ServedCache, part: str) -> tuple[NDArray[np.int64], bool]:
    """Rows whose id contains ``part``, and whether there are more of them than were looked at."""
    if not part:
        return np.arange(served.samples), False
    found = matching_rows(served.cache.ids, part.encode("utf-8", "surrogateescape"))
    return found[:MOST_MATCHES], len(found) > MOST_MATCHES


def matching_rows(ids: SampleIds, part: bytes) -> NDArray[np.int64]:
    """Rows whose id contains ``part``: all, or one more than ``MOST_MATCHES``."""
    found: list[int] = []
    for start in range(0, len(ids), _IDS_AT_ONCE):
        offsets = ids.offsets[start : start + _IDS_AT_ONCE + 1]
        joined = ids.id_bytes[offsets[0] : offsets[-1]].tobytes()
        found += (start + row for row in _rows_with(joined, offsets - offsets[0], part))
        if len(found) > MOST_MATCHES:
            break
    return np.array(found[: MOST_MATCHES + 1], np.int64)


def _rows_with(joined: bytes, offsets: NDArray[np.int64], part: bytes) -> list[int]:
    """Which of some ids, given as their joined bytes, contain ``part``."""
    found, place = [], joined.find(part)
    while place >= 0:
        row = int(np.searchsorted(offsets, place, "right")) - 1
        end = int(offsets[row + 1])
        if place + len(part) <= end:
            found.append(row)
            place = joined.find(part, end)
        else:  # it began in one id and ended in the next
            place = joined.find(part, place + 1)
    return found
