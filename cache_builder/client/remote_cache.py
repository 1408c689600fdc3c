"""A cache behind a logit server: its manifest, arrays and packed records."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from tokenize import TokenError
from typing import Any, Self

import httpx2
import numpy as np
from numpy.typing import NDArray

from cache_builder.client.connection import PATIENCE_S, Connection
from cache_builder.client.shared_parts import SharedParts
from cache_builder.format.class_names import ClassNames
from cache_builder.format.codecs import Part
from cache_builder.format.errors import ServerError
from cache_builder.format.layout import ArraySpec, digest_array, header_specs
from cache_builder.format.manifest import Manifest, array_digest, parse_manifest
from cache_builder.format.positions import Positions
from cache_builder.format.wire import COUNT_TYPE, COUNTED, JSON, records_type, rows_body

RECORDS_PER_REQUEST = 16_384
"""Records asked for at once: one request stays small enough to be repeated without regret."""
_TEXT_BYTES = 4096
"""More than the ids of samples and the names of classes have on average."""
_RECORDS_BYTES = 8 * 2**30
"""More than the records of one request have, where it is not known how many there are."""
_PROBLEM_BYTES = 2**20
"""More than an answer has that says what is wrong."""
_NO_ARRAY = (ValueError, TypeError, OverflowError, EOFError, MemoryError, TokenError)
"""What numpy raises for bytes that are no array: nothing it says of headers is checked before it is used."""
_IDS_PER_REQUEST, _LONG_IDS_PER_REQUEST = 4096, 256
"""Ids asked for at once: of samples with one record each, and with many."""


class RemoteCache:
    """One cache of one server. Every method may be called from several threads.

    Requests are those of :class:`Connection`: patient, and sure to be about one cache_id.
    """

    def __init__(self, connection: Connection) -> None:
        """``connection``: to the URL of the cache."""
        connection.is_of_cache = True
        self.connection = connection
        self.location = connection.location
        self._manifest: Manifest | None = None
        self._positions: Positions | None = None
        self._shared: SharedParts | None = None
        self._body: dict[str, Any] = {}

    @classmethod
    def at(cls, url: str, token: str | None = None, patience_s: float = PATIENCE_S) -> Self:
        """The cache at ``http(s)://host/v1/caches/NAME``."""
        return cls(Connection(url, token, patience_s))

    def manifest(self) -> Manifest:
        """The manifest. Its cache_id is the only one accepted from then on."""
        if self._manifest is None:
            response = self.connection.request("GET", "")
            try:
                self._body = response.json()
            except (ValueError, RecursionError) as error:
                raise ServerError(f"{self.location} did not answer with a manifest: {error}") from error
            manifest = parse_manifest(self._body, where=self.location)
            self.connection.cache_id = manifest.completed_id
            self.connection.check(response)
            self.connection.begin_with(manifest.completed_id)
            if SharedParts.worth_keeping(manifest):
                self._shared = SharedParts(manifest, self._shared_records)
            self._manifest = manifest
        return self._manifest

    def names(self) -> ClassNames:
        """What the classes are called."""
        return ClassNames.read(self.manifest(), self._body, self.array)

    def array(self, path: str) -> NDArray[Any]:
        """One array of the manifest's ``digests``, checked against its digest, or ``samples/digest``."""
        most_bytes = _array_bytes(self.manifest())
        content = self.connection.request("GET", f"/arrays/{path}", most_bytes=most_bytes).content
        try:
            # Not `numpy.load`, which also takes archives and pickles for what they are.
            array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        except _NO_ARRAY as error:
            raise ServerError(f"{self.location}/arrays/{path} is not an array: {error}") from error
        expected = self.manifest().digests.get(path)
        if expected is not None and array_digest(array) != expected:
            raise ServerError(f"{self.location}/arrays/{path} does not match its digest in the manifest")
        spec = next((spec for spec in _array_specs(self.manifest()) if spec.path == path), None)
        if spec is not None and not _is_of(array, spec):
            raise ServerError(
                f"{self.location}/arrays/{path} is {array.dtype} {array.shape}, expected {spec.dtype} "
                f"{spec.shape} by the manifest: does a proxy change the answers?"
            )
        return array

    def records(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Records of the given rows, in their order."""
        if self._shared is None:
            return self._records(view, rows)
        return np.concatenate([self._shared.of(view, rows), self._records(view, rows, Part.OWN)], axis=1)

    def records_of_ids(self, view: int, ids: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Records of samples by id, in their order, and how many each of them has.

        The server looks the ids up: their table, which may be large, does not come here.
        """
        at_once = _IDS_PER_REQUEST if self.manifest().positions.kind == "one" else _LONG_IDS_PER_REQUEST
        found = [self._of_ids(view, ids[at : at + at_once]) for at in range(0, len(ids), at_once)]
        if not found:
            return np.empty((0, self._part_bytes(Part.WHOLE)), np.uint8), np.empty(0, np.int64)
        records, counts = zip(*found, strict=True)
        return np.concatenate(records), np.concatenate(counts)

    def _of_ids(self, view: int, ids: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        body = json.dumps({"ids": list(ids)}).encode()
        response = self._posted(view, JSON, body, Part.WHOLE, _RECORDS_BYTES)
        if records_type(self.manifest()) == COUNTED:
            prefix = response.content[: len(ids) * COUNT_TYPE.itemsize]
            counts = np.frombuffer(prefix, COUNT_TYPE).astype(np.int64)
        else:
            counts = self.positions().counts(range(len(ids)))
        return self._as_records(response, counts, Part.WHOLE), counts

    def _shared_records(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        if len(rows) == self.manifest().data.samples:
            return self._page(view, Part.SHARED)
        return self._records(view, rows, Part.SHARED)

    def _records(self, view: int, rows: NDArray[np.int64], part: Part = Part.WHOLE) -> NDArray[np.uint8]:
        if not rows.size:
            return np.empty((0, self._part_bytes(part)), np.uint8)
        counts = self.positions().counts(rows)
        found = [self._requested(view, rows[some], counts[some], part) for some in _requests(counts)]
        return np.concatenate(found) if len(found) != 1 else found[0]

    def page(self, view: int) -> NDArray[np.uint8]:
        """All records of a view, asked for in slices: what has arrived is not asked for again."""
        if self._shared is None:
            return self._page(view)
        rows = np.arange(self.manifest().data.samples)
        return np.concatenate([self._shared.of(view, rows), self._page(view, Part.OWN)], axis=1)

    def _page(self, view: int, part: Part = Part.WHOLE) -> NDArray[np.uint8]:
        counts = self.positions().counts(range(self.manifest().data.samples))
        page = np.empty((int(counts.sum()), self._part_bytes(part)), np.uint8)
        filled = 0
        for some in _requests(counts):
            params = {"start": some.start, "stop": some.stop} | _part_query(part)
            response = self.connection.request(
                "GET",
                f"/views/{view}/records",
                params=params,
                most_bytes=self._most_bytes(counts[some], part),
            )
            records = self._as_records(response, counts[some], part)
            page[filled : filled + len(records)] = records
            filled += len(records)
        return page

    def positions(self) -> Positions:
        """Which positions the rows own."""
        if self._positions is None:
            self._positions = Positions.read(self.manifest(), self.array)
        return self._positions

    def close(self) -> None:
        """End waiting requests and drop the connections."""
        self.connection.close()

    def _part_bytes(self, part: Part) -> int:
        return self.manifest().codec.layout.part(part).record_bytes

    def _requested(
        self, view: int, rows: NDArray[np.int64], counts: NDArray[np.int64], part: Part
    ) -> NDArray[np.uint8]:
        most_bytes = self._most_bytes(counts, part)
        return self._as_records(self._posted(view, *rows_body(rows), part, most_bytes), counts, part)

    def _most_bytes(self, counts: NDArray[np.int64], part: Part) -> int:
        """Of the answer with records of rows that have so many each, or of one that says what is wrong."""
        records = int(counts.sum()) * self._part_bytes(part)
        return max(_PROBLEM_BYTES, len(counts) * COUNT_TYPE.itemsize + records)

    def _posted(
        self, view: int, media_type: str, body: bytes, part: Part, most_bytes: int
    ) -> httpx2.Response:
        return self.connection.request(
            "POST",
            "/records",
            params={"view": view} | _part_query(part),
            content=body,
            headers={"Content-Type": media_type, "Accept": records_type(self.manifest())},
            most_bytes=most_bytes,
        )

    def _as_records(
        self, response: httpx2.Response, counts: NDArray[np.int64], part: Part
    ) -> NDArray[np.uint8]:
        """The records of rows that have so many each."""
        content, count, nbytes = response.content, int(counts.sum()), self._part_bytes(part)
        is_counted = records_type(self.manifest()) == COUNTED
        prefix = counts.astype(COUNT_TYPE).tobytes() if is_counted else b""
        if len(content) != len(prefix) + count * nbytes or not content.startswith(prefix):
            raise ServerError(
                f"{response.url} answered {len(content)} bytes for {count} records of {nbytes} "
                f"bytes{' after their counts' if is_counted else ''}: does a proxy change the answers?"
            )
        # A bytearray makes the array writable: torch warns about others.
        records = np.frombuffer(bytearray(content), np.uint8, offset=len(prefix))
        return records.reshape(count, nbytes)


def _requests(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Rows of so many records each as slices of as many as one request asks for, of one row at least."""
    # A row without a record is a row of a request all the same.
    ends = np.cumsum(np.maximum(counts, 1))
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + RECORDS_PER_REQUEST, side="right")))
        yield slice(start, stop)
        start = stop


def _array_bytes(manifest: Manifest) -> int:
    """More than any array of a cache has: those of text, whose length no manifest says, are the long ones."""
    texts = manifest.data.samples + manifest.classes + manifest.data.own_classes
    known = max(spec.dtype.itemsize * math.prod(spec.shape) for spec in _array_specs(manifest))
    return _PROBLEM_BYTES + max(known, _TEXT_BYTES * texts)


def _array_specs(manifest: Manifest) -> list[ArraySpec]:
    """What the arrays of a cache are like beside its records; those of text have the length 0."""
    return [digest_array(manifest), *header_specs(manifest, text_bytes={})]


def _is_of(array: NDArray[Any], spec: ArraySpec) -> bool:
    is_text = spec.shape == (0,)
    return array.dtype == spec.dtype and (array.ndim == 1 if is_text else array.shape == spec.shape)


def _part_query(part: Part) -> dict[str, Any]:
    """A query that says nothing of whole records: servers of earlier releases know no parts."""
    return {} if part is Part.WHOLE else {"part": part.value}
