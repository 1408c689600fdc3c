"""Full float32 inside, and what was chosen before outside."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Every way to ask for less, in a process of its own: they change it for good.
ASKED = [
    "pass",
    "torch.set_float32_matmul_precision('high')",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
]
PROGRAM = """
import torch
from cache_builder.tensors.float32 import full_float32
{asked}
def now():
    return [torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision]
before = now()
try:
    with torch.autocast("cpu", dtype=torch.bfloat16), full_float32(torch.device("cpu")):
        assert now() == ["ieee", "ieee"], now()
        a, b = torch.randn(64, 300), torch.randn(300, 50)
        assert (a @ b).dtype == torch.float32
        torch.testing.assert_close(a @ b, (a.double() @ b.double()).float(), rtol=0, atol=1e-4)
        raise KeyError
except KeyError:
    pass
assert now() == before, now()
"""


@pytest.mark.parametrize("asked", ASKED)
def test_whatever_was_chosen(asked: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(asked=asked)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
