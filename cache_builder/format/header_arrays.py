"""The arrays of a store that are written once, before the first tile: checked, and read as far as wanted."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any

import xxhash
from numpy.typing import NDArray

from cache_builder.format.arrays import DECODING_ERRORS
from cache_builder.format.by_block import ByBlock, digest_of
from cache_builder.format.columns import Chunk, Column, PackedChunk, WholeChunk
from cache_builder.format.errors import CorruptCacheError, FormatError
from cache_builder.format.held import CompleteStore, HeldObject, HeldStore, Wish
from cache_builder.format.layout import ArraySpec, header_specs
from cache_builder.format.manifest import array_digest
from cache_builder.format.store import read_bytes
from cache_builder.format.stored_arrays import StoredArrays

_KEPT_BYTES = 2**20
_TEXT, _OFFSETS = "_bytes", "_offsets"


class HeaderArrays(StoredArrays):
    """The arrays that the manifest has digests of."""

    _kept: dict[str, NDArray[Any]] | None = None

    @cached_property
    def _text_bytes(self) -> dict[str, int]:
        """How long each text is, by its path, as far as it was read."""
        return {}

    @cached_property
    def _columns(self) -> dict[str, Column]:
        return {}

    @cached_property
    def _seen(self) -> dict[str, int | None]:
        """Digests of the objects that were compared with the manifest."""
        return {}

    def header_array(self, path: str, held: HeldStore | None = None) -> NDArray[Any]:
        """One of the arrays named in the manifest's ``digests``, checked against its digest.

        ``held``: what was fetched of the store before.
        """
        if self._kept is not None and path in self._kept:
            return self._kept[path].copy()
        expected = self._manifest.digests.get(path)
        spec = self.header_spec(path)
        if expected is None or spec is None:
            raise FormatError(f"{self.location} has no array {path!r}")
        held = held or self.held_headers([path])
        array = self.values_of(spec, ..., [], held)
        if array_digest(array) != expected:
            self._forget(spec, [])
            self.check_same_store()
            raise CorruptCacheError(
                f"{self.location}: array {path} does not match its digest in the manifest; "
                "restore the file or rebuild the cache"
            )
        if self._near is not None:
            whole = {key: held.held.get(key) for key in spec.chunk_keys()}
            self._near.prove({key: one.data for key, one in whole.items() if one is not None and one.data})
        if path.endswith(_OFFSETS):
            self._text_bytes[path.removesuffix(_OFFSETS) + _TEXT] = int(array[-1])
        if self._kept is not None and array.nbytes <= _KEPT_BYTES:
            self._kept[path] = array.copy()
        return array

    def column(self, path: str) -> Column:
        """A header array of one axis, of which little is in memory; checked against its digest as a whole."""
        if path not in self._columns:
            self.check_header(path)
        return self._columns[path]

    def check_header(self, path: str, held: HeldStore | None = None) -> None:
        """Raise as :meth:`header_array` does, without a long array in memory. ``held``: likewise."""
        spec = self.header_spec(path)
        if spec is None or not _is_long(spec):
            array = self.header_array(path, held)
            if array.ndim == 1:
                self._columns[path] = Column.over(array)
            return
        column = Column(spec.shape[0], spec.chunks[0], spec.dtype, partial(self._chunk, spec))
        try:
            is_whole = (
                digest_of(ByBlock(column.size, spec.dtype, column.blocks)) == self._manifest.digests[path]
            )
        except DECODING_ERRORS:
            is_whole = False
        if not is_whole:
            for key in spec.chunk_keys():
                self._seen.pop(key, None)
            self.header_array(path)  # says what is wrong with it, or reads it in another way
            column = Column(spec.shape[0], spec.shape[0], spec.dtype, lambda _: self._whole(path))
        if path.endswith(_OFFSETS):
            last = int(column.read(range(column.size - 1, column.size))[0])
            self._text_bytes[path.removesuffix(_OFFSETS) + _TEXT] = last
        self._columns[path] = column

    def _whole(self, path: str) -> WholeChunk:
        return WholeChunk(self.header_array(path))

    def _chunk(self, spec: ArraySpec, number: int) -> Chunk:
        """A chunk of a long header array; decoded as a whole only where another program has written it."""
        key = spec.chunk_keys()[number]
        data = read_bytes(self._store, key)
        self._check_again(key, data)
        packed = PackedChunk.of(data or b"", spec.dtype)
        if packed is not None:
            return packed
        first = number * spec.chunks[0]
        part = slice(first, min(first + spec.chunks[0], spec.shape[0]))
        held = CompleteStore(self._store, {key: None if data is None else HeldObject.whole(data)})
        return WholeChunk(self.values_of(spec, part, [], held))

    def _check_again(self, key: str, data: bytes | None) -> None:
        """Raise where an object is not the one that was compared with the manifest before."""
        found = None if data is None else xxhash.xxh3_64_intdigest(data)
        if self._seen.setdefault(key, found) != found:
            self.check_same_store()
            raise CorruptCacheError(
                f"{self.location}: {key} is not what it was a moment ago; restore it or rebuild the cache"
            )

    def is_kept(self, path: str) -> bool:
        """Whether an array was read before and is at hand: see :meth:`keep_headers`."""
        return self._kept is not None and path in self._kept

    def keep_headers(self) -> None:
        """Keep small header arrays from now on, for a caller that looks at all of them, and then at some."""
        self._kept = {}

    def held_headers(self, paths: Iterable[str]) -> HeldStore:
        """The objects of some header arrays, fetched at once; of text, its length must be known by then."""
        specs = [spec for spec in map(self.header_spec, paths) if spec is not None]
        # Long ones are read chunk by chunk.
        wishes = [Wish(key) for spec in specs if not _is_long(spec) for key in spec.chunk_keys()]
        return HeldStore(self._store, self._fetch(wishes))

    def header_spec(self, path: str) -> ArraySpec | None:
        """What an array is like; None where the store has none of that path."""
        # Only text has a length that the manifest does not know; its offsets end with it.
        if path.endswith(_TEXT) and path not in self._text_bytes:
            self.check_header(path.removesuffix(_TEXT) + _OFFSETS)
        return next(
            (spec for spec in header_specs(self._manifest, self._text_bytes) if spec.path == path), None
        )


def _is_long(spec: ArraySpec) -> bool:
    """Whether an array is better not in memory as a whole."""
    return len(spec.shape) == 1 and spec.shape[0] * spec.dtype.itemsize > _KEPT_BYTES
