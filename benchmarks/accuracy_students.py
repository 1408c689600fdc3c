"""A student of ``benchmarks.accuracy``: its network, its losses, its training and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import glyph_teacher
from benchmarks.accuracy_data import MOST_VIEWS, Data
from benchmarks.live_logits import Floats
from kdcache import make_loss

BATCH = 128
REAL_BATCH = 64
EPOCHS, REAL_EPOCHS, TUNED_EPOCHS = 12, 16, 32
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "kd T=4": ("kd", {"temperature": 4.0}),
    "kd T=1": ("kd", {"temperature": 1.0}),
    "mse": ("mse", {}),
    "standardized": ("standardized", {}),
    "dkd": ("dkd", {}),
    "dist": ("dist", {}),
}


@dataclass(frozen=True)
class Schedule:
    """A student's network and how long it is trained."""

    network: Callable[[], nn.Module]
    epochs: int
    batch: int
    label_weight: float
    """Of the cross-entropy with labels; the teacher has the rest."""


def _of_glyphs() -> nn.Module:
    return glyph_teacher.network(glyph_teacher.Shape(12, 96, EPOCHS))


def _of_real_pictures() -> nn.Module:
    """Four convolutions for pictures of 64 pixels."""

    def down(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *down(3, 16), *down(16, 32), *down(32, 64), *down(64, 128),
        nn.Conv2d(128, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 1000),
    )  # fmt: skip


def _head() -> nn.Module:
    """What is learned on top of a network that was trained before and stays as it is."""
    return nn.Sequential(nn.Linear(1280, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1000))


GLYPHS = Schedule(_of_glyphs, EPOCHS, BATCH, 0.1)
# With all of the views every epoch sees its own, as of a live teacher.
GLYPH_VIEWS = Schedule(_of_glyphs, MOST_VIEWS, BATCH, 0.1)
REAL_PICTURES = Schedule(_of_real_pictures, REAL_EPOCHS, REAL_BATCH, 0.0)
REAL_FEATURES = Schedule(_head, TUNED_EPOCHS, REAL_BATCH, 0.0)


def trained(schedule: Schedule, data: Data, logits: Floats | None, loss: str, seed: int) -> dict[str, float]:
    """What is measured on held-out pictures after the last epoch.

    ``logits`` [V, N, C]: what is known of the teacher, of the first V views, which the epochs use in turn;
    None: labels alone, on all views.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(1000 + seed)
    model = schedule.network()
    samples = data.views.shape[1]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = schedule.epochs * (samples // schedule.batch)
    learning = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    distil = make_loss(LOSSES[loss][0], LOSSES[loss][1])
    # A squared error of logits is far larger than a divergence of probabilities.
    scale = 1.0 / float(logits.var()) if logits is not None and loss == "mse" else 1.0
    for epoch in range(schedule.epochs):
        view = epoch % len(data.views if logits is None else logits)
        for chosen in torch.randperm(samples, generator=rng).split(schedule.batch):
            if len(chosen) < schedule.batch:
                continue
            student = model(seen(data.views[view, chosen]))
            labels = None if data.labels is None else data.labels[chosen]
            total = student.new_zeros(()) if labels is None else functional.cross_entropy(student, labels)
            if logits is not None:
                teacher = torch.from_numpy(logits[view][chosen.numpy()])
                told = teacher.argmax(1) if labels is None else labels
                taught = scale * distil(student, teacher, told)
                total = schedule.label_weight * total + (1 - schedule.label_weight) * taught
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            learning.step()
    return measured(model.eval(), data)


def seen(pictures: Tensor) -> Tensor:
    """Three channels in -1..1; features as they are."""
    if pictures.ndim == 2:
        return pictures
    whole = pictures.float() / 127.5 - 1 if pictures.dtype == torch.uint8 else pictures
    return whole.expand(-1, 3, -1, -1)


@torch.inference_mode()
def measured(model: nn.Module, data: Data) -> dict[str, float]:
    """Top-1; where the teacher has the place of labels, agreement with its top-1 and KL at T = 1, in nats."""
    logits = torch.cat([model(seen(part)) for part in data.held_out.split(512)])
    if data.held_out_logits is None:
        return {"top1": float((logits.argmax(1) == data.held_out_labels).float().mean())}
    live = data.held_out_logits
    divergence = functional.kl_div(
        logits.log_softmax(1), live.log_softmax(1), reduction="batchmean", log_target=True
    )
    return {"top1": float((logits.argmax(1) == live.argmax(1)).float().mean()), "kl": float(divergence)}
