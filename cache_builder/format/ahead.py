"""Doing the next step while somebody uses the result of this one, and cutting work into steps."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_A = TypeVar("_A")
_B = TypeVar("_B")


def ahead(step: Callable[[_A], _B], inputs: Sequence[_A]) -> Iterator[_B]:
    """``step`` of every input in turn, the next one in a thread while this one's result is used."""
    if len(inputs) < 2:
        yield from map(step, inputs)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as pool:
        # A thread knows nothing of the context by itself, such as how long a store is waited for.
        context = contextvars.copy_context()
        coming = pool.submit(context.run, step, inputs[0])
        for following in inputs[1:]:
            result = coming.result()
            coming = pool.submit(context.run, step, following)
            yield result
        yield coming.result()


def batched_by(items: Iterable[_A], size: Callable[[_A], int], most: int) -> Iterator[list[_A]]:
    """Items that follow each other, as many together as have no more than ``most``; one at least."""
    batch: list[_A] = []
    total = 0
    for item in items:
        if batch and total + size(item) > most:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size(item)
    if batch:
        yield batch
