"""What every loss costs, forward and backward, relative to kd: 256 samples of 1,000 classes.

Each loss takes turns with kd in one process, so that a busy machine slows both alike; a row is the median of
the ratios of neighbours.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.report import write_results
from trainer.losses import LOSSES, Loss

SAMPLES, CLASSES, TEACHERS = 256, 1000, 2
ROUNDS = 15
LIMIT = 20.0


def main() -> None:
    """Measure, print and keep the table."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = sorted((row(name, device) for name in LOSSES), key=lambda found: float(str(found[2])))
    slow = [f"{found[0]} ({found[3]})" for found in rows if float(str(found[2])) > LIMIT]
    verdict = f"Above {LIMIT:g}: {', '.join(slow)}." if slow else f"None is above {LIMIT:g}."
    write_results(
        "losses",
        "Forward and backward of every loss, relative to kd",
        ["loss", "ms", "relative to kd", "why it may cost more"],
        rows,
        f"{SAMPLES} samples, {CLASSES} classes, float32, {device}; losses of two views see twice the "
        f"logits, the ensemble {TEACHERS} teachers. Medians of {ROUNDS} turns with kd, each forward, "
        f"backward and the checks of the inputs. {verdict}",
    )


def row(name: str, device: str) -> list[object]:
    """One loss against kd, in turn."""
    loss = LOSSES[name]().prepared(torch.arange(CLASSES, 0, -1))
    if isinstance(loss, torch.nn.Module):
        loss.to(device)
    ours, kd = stepper(loss, device), stepper(LOSSES["kd"](), device)
    ours(), kd()
    pairs = [(timed(ours, device), timed(kd, device)) for _ in range(ROUNDS)]
    ratio = statistics.median(a / b for a, b in pairs)
    return [name, 1e3 * statistics.median(a for a, _ in pairs), ratio, reason(loss)]


def reason(loss: Loss) -> str:
    """What a loss does beside a softmax and a sum."""
    found = []
    if loss.views == 2:
        found.append("two views")
    if loss.takes_ensemble:
        found.append(f"{TEACHERS} teachers")
    if loss.couples_samples:
        found.append("relations within the batch")
    return ", ".join(found)


def stepper(loss: Loss, device: str) -> Callable[[], None]:
    """A forward and a backward pass."""
    generator = torch.Generator().manual_seed(0)
    shape = (SAMPLES, CLASSES) if loss.views == 1 else (2, SAMPLES, CLASSES)
    student = torch.randn(shape, generator=generator).to(device).requires_grad_()
    teacher = (3 * torch.randn((TEACHERS, *shape), generator=generator)).to(device)
    if not loss.takes_ensemble:
        teacher = teacher[0]
    labels = torch.randint(CLASSES, (SAMPLES,), generator=generator).to(device)

    def step() -> None:
        student.grad = None
        loss(student, teacher, labels).backward()

    return step


def timed(step: Callable[[], None], device: str) -> float:
    """Seconds of one step, the device waited for."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
