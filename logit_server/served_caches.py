"""The caches a server serves, and how they are found."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache_builder.format import Cache, KDCacheError, Manifest
from cache_builder.format.codecs import Part
from cache_builder.format.layout import ROOT_ATTRIBUTE, Blocks, record_arrays
from cache_builder.format.objects import CacheObjects
from cache_builder.format.wire import records_type
from logit_server.errors import RequestError, TooLargeError, UnknownCacheError
from logit_server.places import Place
from logit_server.public_manifest import public_manifest
from logit_server.record_json import RecordJson


@dataclass(frozen=True)
class ServedCache:
    """One open cache under the name it has on this server."""

    name: str
    cache: Cache
    cache_id: str
    at: Place | None = None
    """Where it lies, as others know it that lay or lie there; None for a place of its own."""

    @cached_property
    def place(self) -> Place:
        """Where it lies, and what lies there by now."""
        return self.at or Place(self.cache)

    @property
    def manifest(self) -> Manifest:
        """The manifest."""
        return self.cache.manifest

    @cached_property
    def manifest_json(self) -> bytes:
        """The manifest in the format version of the store, with names in place of paths."""
        return json.dumps(public_manifest(self.cache.body), ensure_ascii=False).encode()

    @cached_property
    def root_json(self) -> bytes:
        """The ``zarr.json`` of the store's root, which holds the manifest."""
        attributes = {ROOT_ATTRIBUTE: json.loads(self.manifest_json)}
        root = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        return json.dumps(root, ensure_ascii=False).encode()

    @cached_property
    def objects(self) -> CacheObjects:
        """The other objects of the store."""
        return CacheObjects(self.cache)

    @cached_property
    def samples(self) -> int:
        """N, the number of rows."""
        return self.manifest.data.samples

    @cached_property
    def views(self) -> int:
        """V, views per sample."""
        return self.manifest.views.count

    @cached_property
    def record_bytes(self) -> int:
        """Bytes of one packed record."""
        return self.cache.record_bytes

    def part_bytes(self, part: Part) -> int:
        """Bytes of a part of one packed record."""
        return self.cache.layout.part(part).record_bytes

    def pages_of(self, view: int, part: Part = Part.WHOLE) -> tuple[tuple[int, Part], ...]:
        """The pages that hold a part of a view's records, side by side.

        What the views of a tile share has one page, which has the number of their first view.
        """
        if not self.cache.layout.shared_bytes:
            return ((view, Part.WHOLE),)
        shared, own = (view - view % self.manifest.tiling.views, Part.SHARED), (view, Part.OWN)
        return {Part.WHOLE: (shared, own), Part.SHARED: (shared,), Part.OWN: (own,)}[part]

    def check_part(self, part: Part) -> Part:
        """The part itself, where the records of this cache have it; else :class:`RequestError`."""
        if part is not Part.WHOLE and not self.cache.layout.shared_bytes:
            raise RequestError(
                f"part={part} is of records whose views share something, and those of cache {self.name!r} "
                "do not: ask for them without `part`"
            )
        return part

    @cached_property
    def stored_bytes(self) -> int:
        """Bytes of all records on disk."""
        paths, commits = [spec.path for spec in record_arrays(self.manifest)], self.cache.commits.values()
        return sum(commit.shards[path].bytes for commit in commits for path in paths)

    @cached_property
    def records_type(self) -> str:
        """Media type of raw records."""
        return records_type(self.manifest)

    @cached_property
    def has_one_position(self) -> bool:
        """Whether a row has one record in every view, so that its position is its row."""
        return self.manifest.positions.kind == "one"

    @property
    def blocks(self) -> Blocks:
        """How the positions of a view are cut into what is read, kept and evicted at once."""
        return self.cache.position_blocks

    @property
    def block_bytes(self) -> int:
        """Bytes of the largest block."""
        return len(self.blocks.rows(0)) * self.record_bytes

    @cached_property
    def record_json(self) -> RecordJson:
        """Writes decoded records."""
        return RecordJson(self.cache, self.class_names)

    @cached_property
    def class_names(self) -> dict[int, str]:
        """What classes are called, by class id; those that nobody named are missing."""
        return dict(enumerate(self.cache.class_names or ()))

    def check_view(self, view: int) -> int:
        """The view itself, where the cache has it; else :class:`RequestError`."""
        if not 0 <= view < self.views:
            raise RequestError(
                f"view {view} is out of range: cache {self.name!r} has views 0 to {self.views - 1}"
            )
        return view

    def check_rows(self, rows: NDArray[np.integer]) -> None:
        """Raise :class:`RequestError` for rows that this cache does not have."""
        if rows.size and not (rows.min() >= 0 and rows.max() < self.samples):
            raise self.rows_out_of_range(rows)

    def positions_of(
        self, rows: NDArray[np.integer], limit: int
    ) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        """The positions of ``rows``, one after the other, and how many each of them has.

        Raises :class:`RequestError` for rows that this cache does not have, :class:`TooLargeError` for more
        than ``limit`` positions.
        """
        self.check_rows(rows)
        counts = self.cache.positions.counts(rows)
        total = int(counts.sum())
        if total > limit:
            raise TooLargeError(
                f"{len(rows):,} row(s) of cache {self.name!r} have {total:,} records, this server answers "
                f"with at most {limit:,} at once; ask for fewer rows, or raise the server's limit"
            )
        return self.cache.positions.of(rows), counts

    def rows_out_of_range(self, rows: NDArray[np.integer]) -> RequestError:
        """The error that names the first few of ``rows`` this cache does not have."""
        wrong = rows[(rows < 0) | (rows >= self.samples)]
        named = ", ".join(str(row) for row in wrong[:5])
        return RequestError(
            f"{len(wrong)} row(s) are out of range: {named}; "
            f"cache {self.name!r} has rows 0 to {self.samples - 1}"
        )


@dataclass(frozen=True)
class Missing:
    """Why a name or a cache_id that was served is not served now."""

    name: str
    """On this server."""
    error: type[KDCacheError]
    detail: str
    state: str = "is not where it was; it is served again when it is put back"
    """The same, without what else the server has: it goes on after the name of what is missing."""

    def of_id(self, cache_id: str) -> Missing:
        """The same for those who may know of this cache_id and of nothing else."""
        return replace(self, name=cache_id, detail=f"cache {cache_id} {self.state}")


class Catalog:
    """The served caches, found by name or by cache_id. It never changes: another one takes its place."""

    def __init__(
        self,
        caches: list[ServedCache],
        former: Iterable[ServedCache] = (),
        missing: Mapping[str, Missing] | None = None,
        *,
        is_part: bool = False,
    ) -> None:
        """``former``: caches that ``caches`` were made from and still hold: they are found by cache_id.

        ``missing``: by names and cache_ids that were served before. ``is_part``: whether the server may have
        others, of which whoever sees these is told nothing.
        """
        self.is_part = is_part
        self._caches = caches
        self._former = list(former)
        self._missing = missing or {}
        self._by_key = {served.cache_id: served for served in [*self._former, *caches]}
        self._by_key |= {served.name: served for served in caches}

    def __iter__(self) -> Iterator[ServedCache]:
        return iter(self._caches)

    def only(self, keys: Container[str]) -> Catalog:
        """Those of these caches that have one of the names or cache_ids."""
        caches, former = (
            [cache for cache in some if cache.name in keys or cache.cache_id in keys]
            for some in (self._caches, self._former)
        )
        missing = {
            # Who knows an id alone is not told what has its name by now.
            key: item if item.name in keys else item.of_id(key)
            for key, item in self._missing.items()
            if key in keys or item.name in keys
        }
        return Catalog(caches, former, missing, is_part=True)

    def items(self) -> Iterable[tuple[str, ServedCache]]:
        """Every name and every cache_id with its cache."""
        return self._by_key.items()

    def get(self, name: str) -> ServedCache | None:
        """The cache of that name or cache_id, if it is served."""
        return self._by_key.get(name)

    def find(self, name: str) -> ServedCache:
        """The cache of that name or cache_id.

        Raises :class:`UnknownCacheError` for one that never was here, and for one that was what it is missing
        for: :class:`StorageError` or :class:`ReplacedCacheError`.
        """
        served = self._by_key.get(name)
        if served is None:
            if missing := self._missing.get(name):
                raise missing.error(missing.detail)
            known = ", ".join(sorted(repr(cache.name) for cache in self._caches)) or "none for this token"
            raise UnknownCacheError(f"no cache {name[:128]!r} here; this server has {known}")
        return served
