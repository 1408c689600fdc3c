from __future__ import annotations

import pytest
import torch

from cache_builder.console.memory import memory_failures
from cache_builder.format.errors import KDCacheError


def test_host_memory() -> None:
    with (
        pytest.raises(KDCacheError, match=r"out of memory .*smaller --batch-size than 64"),
        memory_failures(64),
    ):
        torch.empty(2**50)


def test_device_memory() -> None:
    with pytest.raises(KDCacheError, match=r"CUDA out of memory.*--batch-size"), memory_failures(64):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")


def test_python_memory() -> None:
    with pytest.raises(KDCacheError, match="out of memory"), memory_failures(64):
        raise MemoryError


def test_what_else_goes_wrong_is_left_alone() -> None:
    with pytest.raises(RuntimeError, match="mat1"), memory_failures(64):
        torch.ones(2, 3) @ torch.ones(2, 3)
