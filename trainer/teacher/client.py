"""A cache as a training loop sees it, wherever it lies: ids, labels and packed records.

with TeacherCache.open("http://host:8000/v1/caches/vit_l") as cache:
    records = cache.fetch(view=0, rows=cache.rows_for(["n01440764/x.JPEG"]))
    logits = RecordDecoder(cache.codec)(torch.from_numpy(records))
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_builder.client.connection import PATIENCE_S
from cache_builder.client.remote_cache import RemoteCache
from cache_builder.client.selection import check_view, checked_rows
from cache_builder.format import Manifest, Ranked
from cache_builder.format.class_names import ClassNames
from cache_builder.format.codecs import open_codec
from cache_builder.format.ids import SampleIds
from cache_builder.format.layout import codec_path
from cache_builder.format.manifest import LOGITS
from cache_builder.format.positions import Positions, require_one_position
from trainer.teacher.local import StoreSource


class Source(Protocol):
    """Where a cache lies. Methods may be called from several threads."""

    location: str

    def manifest(self) -> Manifest:
        """The manifest."""

    def names(self) -> ClassNames:
        """What the classes are called."""

    def array(self, path: str) -> NDArray[Any]:
        """An array that is not under ``records/``."""

    def positions(self) -> Positions:
        """Which positions the rows own."""

    def records(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Packed records [n, record_bytes] of valid rows, those of each row one after the other."""

    def page(self, view: int) -> NDArray[np.uint8]:
        """Packed records [n, record_bytes] of all rows of a valid view, likewise."""

    def close(self) -> None:
        """Release what is held."""


class RowRecords(NamedTuple):
    """What a cache says about rows that may have several positions each."""

    records: NDArray[np.uint8]
    """Packed, uint8 [sum of the counts, record_bytes]: those of the first row, then those of the next."""
    counts: NDArray[np.int64]
    """How many records [n] each row has, which may be none."""


class RowValues(NamedTuple):
    """The same, decoded."""

    values: NDArray[np.float32]
    """Logits [sum of the counts, C]; NaN of a row that could not be read."""
    counts: NDArray[np.int64]
    """How many of them [n] each row has."""


class TeacherCache:
    """What a teacher said about every sample, by row and view. Use ``TeacherCache.open``.

    Nothing but the manifest is transferred before it is asked for. Records may be fetched from any thread.
    Not for loader workers: fetch in the main process, as ``trainer.replay.prefetch.RecordFeed`` does, ahead
    of need.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @classmethod
    def open(cls, url: str, *, token: str | None = None, patience_s: float = PATIENCE_S) -> Self:
        """Open ``http(s)://host/v1/caches/NAME``, a local path, or an fsspec URL such as ``s3://…``.

        ``token``: bearer token for the server, by default the environment's ``KDCACHE_TOKEN``.
        ``patience_s``: how long a server, or a store that was opened, may be away before a request gives up.
        Raises :class:`ServerError` where no server answers, and the errors of ``open_cache`` for a path.
        """
        if url.startswith(("http://", "https://")):
            source: Source = RemoteCache.at(url, token, patience_s)
        else:
            source = StoreSource(url, patience_s)
        try:
            source.manifest()
        except BaseException:
            source.close()
            raise
        return cls(source)

    @property
    def location(self) -> str:
        """The URL or path it was opened with."""
        return self._source.location

    @property
    def manifest(self) -> Manifest:
        """The manifest."""
        return self._source.manifest()

    @cached_property
    def codec(self) -> Ranked[Any]:
        """What decodes the records: the manifest's codec with its arrays, which are fetched now."""
        manifest = self.manifest

        def read(name: str) -> NDArray[Any]:
            return self._source.array(codec_path(manifest, LOGITS, name))

        return open_codec(manifest.codec, manifest.classes, read)

    @property
    def cache_id(self) -> str:
        """The digest that names this cache for ever."""
        return self._source.manifest().completed_id

    @cached_property
    def record_bytes(self) -> int:
        """Bytes of one packed record."""
        return self._source.manifest().codec.layout.record_bytes

    @cached_property
    def ids(self) -> SampleIds:
        """Sample ids in row order."""
        return SampleIds(self._source.array("samples/id_bytes"), self._source.array("samples/id_offsets"))

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the C classes in logit order; None where nobody named them."""
        return self._source.names().teacher

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """Labels [N], -1 where there is none."""
        return self._source.array("samples/label")

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """xxh64 of each sample's source bytes [N]."""
        return self._source.array("samples/digest")

    @cached_property
    def probe_pixels(self) -> NDArray[np.uint8]:
        """The render probe: pixels [pairs, 3, size, size] of the manifest's ``probe.pairs``."""
        return self._source.array("probe/pixels")

    def rows_for(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of sample ids, in their order; raises :class:`UnknownSampleError` naming those it lacks."""
        return self.ids.rows_for(ids)

    def fetch(self, view: int, rows: ArrayLike) -> NDArray[np.uint8]:
        """Packed records uint8 [n, record_bytes] of rows [n] in one view, in their order.

        Raises :class:`DataError` for a view or row that the cache does not have, and :class:`ConfigError`
        where a row may have several records: :meth:`fetch_rows` is for these.
        """
        self._require_one_position("TeacherCache.fetch")
        return self._fetched(view, self._checked(rows))

    def fetch_page(self, view: int) -> NDArray[np.uint8]:
        """All packed records of one view, uint8 [N, record_bytes]: the same bytes as ``fetch``, in one go."""
        self._require_one_position("TeacherCache.fetch_page")
        self.check_view(view)
        return self._source.page(view)

    def fetch_rows(self, view: int, rows: ArrayLike | None = None) -> RowRecords:
        """The packed records of rows [n] in one view, by default of all, with how many each row has.

        Of any cache: where a sample has one position, these are the records of :meth:`fetch`.
        """
        if rows is None:
            self.check_view(view)
            return RowRecords(self._source.page(view), self.counts(np.arange(self.manifest.data.samples)))
        wanted = self._checked(rows)
        return RowRecords(self._fetched(view, wanted), self.counts(wanted))

    def fetch_values(self, view: int, rows: ArrayLike | None = None) -> RowValues:
        """As :meth:`fetch_rows`, decoded on this processor; ``RecordDecoder`` does it on a device."""
        records, counts = self.fetch_rows(view, rows)
        return RowValues(np.asarray(self.codec.decode(self.codec.unpack(records))), counts)

    def counts(self, rows: ArrayLike) -> NDArray[np.int64]:
        """How many records [n] each of some rows has in every view."""
        return self._source.positions().counts(self._checked(rows))

    def _checked(self, rows: ArrayLike) -> NDArray[np.int64]:
        return checked_rows(self._source.manifest(), rows)

    def _fetched(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.check_view(view)
        if not rows.size:
            return np.empty((0, self.record_bytes), np.uint8)
        return self._source.records(view, rows)

    def _require_one_position(self, what: str) -> None:
        require_one_position(self.manifest, self.location, what)

    def close(self) -> None:
        """Drop connections and pages; waiting requests end with an error."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check_view(self, view: int) -> None:
        """Raise :class:`DataError` for a view that the cache does not have."""
        check_view(self._source.manifest(), view)
