"""A machine that gives out in the middle of a build, told as a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cache_builder.format.errors import KDCacheError


@contextmanager
def machine_failures(batch_size: int) -> Iterator[None]:
    """Turn a dead loader process and exhausted memory into :class:`KDCacheError` with what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = str(error).strip().partition("\n")[0]
        if "DataLoader worker" in said:
            # torch tells it from a signal handler, so it can surface anywhere in the main process.
            raise KDCacheError(
                f"a loader process died, as when memory runs out ({said}); committed work is kept: use "
                "fewer --workers (0 renders in the main process) or a smaller --batch-size"
            ) from error
        if isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said:
            raise KDCacheError(
                f"out of memory ({said or 'MemoryError'}); committed work is kept: use a smaller "
                f"--batch-size than {batch_size}"
            ) from error
        raise
