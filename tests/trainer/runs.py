"""Small training runs over a cache of digits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cache_builder.datasets import LimitedSource, open_source
from tests.trainer.replay_caches import write_replay_cache
from trainer.replay.batches import Batch, TrainingStream
from trainer.run.assemble import Run, assemble
from trainer.run.settings import TrainSettings

SAMPLES, VIEWS, BATCH = 160, 2, 32
STEPS_PER_EPOCH = SAMPLES // BATCH


def write_digits_cache(path: Path, **settings: Any) -> Path:
    """A cache of the first 160 digits in two views of 8 pixels."""
    write_replay_cache(path, LimitedSource(open_source("digits:train"), SAMPLES), views=VIEWS, **settings)
    return path


Caches = Path | str | Sequence[Path | str] | None


def config(out: Path, cache: Caches, **settings: Any) -> TrainSettings:
    """Three epochs of a small student, distilled and on labels."""
    defaults = {
        "data": "digits:train",
        "limit": SAMPLES,
        "student": f"{__name__}:with_dropout",
        "loss": "ce*0.5 + kd*0.5",
        "epochs": 3,
        "batch_size": BATCH,
        "optimizer": "adamw",
        "lr": 2e-2,
        "device": "cpu",
        "tensorboard": False,
    }
    caches = [cache] if isinstance(cache, Path | str) else cache or ()
    given = {**defaults, "out": out, "cache": [str(path) for path in caches], **settings}
    return TrainSettings.model_validate(given)


@contextmanager
def assembled(out: Path, cache: Caches, **settings: Any) -> Iterator[tuple[Run, TrainingStream]]:
    """A run whose steps a test takes itself, and its micro-batches."""
    with ExitStack() as stack:
        run = assemble(config(out, cache, **settings), stack)
        stream = stack.enter_context(TrainingStream(run.dataset, run.plan, 0, run.caches))
        run.model.train()
        yield run, stream


def next_batches(run: Run, stream: TrainingStream) -> list[Batch]:
    """The micro-batches of one step."""
    batches = stream.take(run.config.settings.accumulation, lambda: False)
    assert batches is not None
    return batches


def with_dropout(num_classes: int) -> nn.Module:
    """Has both kinds of state that a resumed run may get wrong: random numbers and running statistics."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(128, num_classes),
    )


def without_state(num_classes: int) -> nn.Module:
    """Its gradient of a batch is the mean over any division of it."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, num_classes))


class WithUnused(nn.Module):
    """Has a layer that no answer comes from."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.used, self.unused = without_state(num_classes), nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C]."""
        answer: Tensor = self.used(images)
        return answer


def with_unused(num_classes: int) -> nn.Module:
    """A student of which a part never trains."""
    return WithUnused(num_classes)


def weights(run: Path, name: str = "last") -> dict[str, Tensor]:
    """The weights a run left."""
    return load_file(run / f"{name}.safetensors")


def assert_same_weights(run: Path, other: Path) -> None:
    """Bit for bit."""
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
