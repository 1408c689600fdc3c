"""The images of a cache's rows, looked up in a data set and compared with what the cache was built from."""

from __future__ import annotations

from torch import Tensor

from cache_builder.datasets import ImageSource
from cache_builder.format.errors import DataError, UnknownSampleError
from cache_builder.format.ids import SampleIds
from cache_builder.format.reader import Cache


class Images:
    """The images of a cache's rows, each the one the cache was built from."""

    def __init__(self, cache: Cache, source: ImageSource) -> None:
        self._cache, self._source = cache, source
        self._ids = SampleIds.of(source.ids)

    def read(self, row: int) -> Tensor | None:
        """None for a row that could not be read; :class:`DataError` for one that is not there or changed."""
        if row in self._cache.manifest.invalid_rows:
            return None
        sample_id = self._cache.ids[row]
        sample = self._source.read(self._index(sample_id))
        if sample.digest != int(self._cache.read_digests(range(row, row + 1))[0]):
            raise DataError(
                f"{self._source.spec}: sample {sample_id!r} changed since the cache was built (its digest "
                "differs), so the teacher saw another picture; restore it"
            )
        return sample.value

    def _index(self, sample_id: str) -> int:
        try:
            return int(self._ids.rows_for([sample_id])[0])
        except UnknownSampleError:
            raise DataError(
                f"{self._source.spec} has no sample {sample_id!r}: give the data set the cache was built "
                f"from ({self._cache.manifest.data.spec}) with --data"
            ) from None
