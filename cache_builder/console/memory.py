"""Memory that runs out in the middle of a build, told as a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cache_builder.format.errors import KDCacheError


@contextmanager
def memory_failures(batch_size: int) -> Iterator[None]:
    """Turn exhausted memory of host or device into :class:`KDCacheError` with what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = str(error).strip().partition("\n")[0]
        if is_exhausted(error):
            raise KDCacheError(
                f"out of memory ({said or 'MemoryError'}); committed work is kept: use a smaller "
                f"--batch-size than {batch_size}"
            ) from error
        raise


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    said = str(error).strip().partition("\n")[0]
    return isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said
