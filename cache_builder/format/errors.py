"""The errors of kdcache, grouped by what a caller would do about them."""

from __future__ import annotations


class KDCacheError(Exception):
    """Anything kdcache refuses. The message says where, what was found, what was expected, what to do."""

    exit_code = 1


class ConfigError(KDCacheError):
    """A setting is wrong or contradicts another: change the command."""

    exit_code = 2


class DataError(KDCacheError):
    """A data set or a sample is not what it should be: look at the data."""


class UnknownSampleError(DataError):
    """Sample ids that the cache does not hold."""

    def __init__(self, sample_ids: list[str], total: int, hint: str = "") -> None:
        """``hint``: what is near the first of them, as it is to be told."""
        self.sample_ids = sample_ids
        self.total = total
        self.hint = hint
        shown = ", ".join(repr(sample_id) for sample_id in sample_ids)
        more = f" and {total - len(sample_ids)} more" if total > len(sample_ids) else ""
        super().__init__(f"{total} sample id(s) are not in the cache: {shown}{more}{hint}")

    def __reduce__(self) -> tuple[type[UnknownSampleError], tuple[list[str], int, str]]:
        # Exceptions unpickle from their message; this one has other arguments and crosses processes.
        return UnknownSampleError, (self.sample_ids, self.total, self.hint)


class FormatError(KDCacheError):
    """A store is not a kdcache store, or of a version this release cannot read."""


class IncompleteCacheError(KDCacheError):
    """A cache whose tiles are not all committed: finish the build."""


class CorruptCacheError(KDCacheError):
    """Stored bytes fail their checksum or are missing: restore the file or rebuild the tile."""


class StorageError(KDCacheError):
    """A disk or an object store did not answer. It says nothing about the data: the next time it may."""

    exit_code = 6

    def __init__(self, message: str, *, waiting_helps: bool = True) -> None:
        """``waiting_helps``: whether the same request may be answered later; not without credentials."""
        self.waiting_helps = waiting_helps
        super().__init__(message)


class ServerError(KDCacheError):
    """A logit server did not answer as it should."""
