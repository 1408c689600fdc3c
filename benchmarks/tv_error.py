"""Decoded dense logits of a real teacher against its live logits: how far the student's targets move.

Teachers are trained here in seconds, on scikit-learn's handwritten digits put side by side: two of them make
a problem of 100 classes, three one of 1,000. The measured images are made of digits the teacher never saw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.report import write_results
from cache_builder.calibration import calibrate
from cache_builder.calibration.fidelity import stored_bytes
from cache_builder.format.codecs.fields import log_sum_exp
from cache_builder.format.manifest import CodecRequest
from cache_builder.tensors.encode import RecordEncoder

STEPS = 1500
BATCH = 256
NOISE = 0.25
CALIBRATION = 4096
HELD_OUT = 4096
TEMPERATURES = (1.0, 4.0)
TOP_KS, BUDGETS = (5, 10), (40.0, 64.0)
CHUNK = 4096


@dataclass(frozen=True)
class Digits:
    """Single digits [n, 8, 8] in 0..1 and their labels."""

    images: Tensor
    labels: Tensor

    def combine(self, count: int, places: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """``count`` noisy images of ``places`` random digits, flattened, and their numbers as labels."""
        chosen = torch.randint(len(self.images), (count, places), generator=rng)
        rows = self.images[chosen].permute(0, 2, 1, 3).reshape(count, -1)
        weights = 10 ** torch.arange(places - 1, -1, -1)
        return rows + NOISE * torch.randn(rows.shape, generator=rng), self.labels[chosen] @ weights


def split_digits() -> tuple[Digits, Digits]:
    """Training digits and held-out digits."""
    data = load_digits()
    images, labels = torch.tensor(data.images, dtype=torch.float32) / 16, torch.tensor(data.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[:1300], order[1300:]
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])


def train_teacher(digits: Digits, places: int, steps: int) -> nn.Module:
    """A three-layer perceptron; AdamW, one cycle."""
    torch.manual_seed(0)
    width = 128 * places
    model = nn.Sequential(
        nn.Linear(64 * places, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 10**places),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    rng = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images, labels = digits.combine(BATCH, places, rng)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def even_tail(live: NDArray[np.float32], top_k: int) -> NDArray[np.float32]:
    """What published caches keep: exact top-K probabilities, the rest of the mass spread evenly."""
    lse = log_sum_exp(live.astype(np.float64))[:, None]
    order = np.argsort(-live, axis=1)[:, :top_k]
    top = np.take_along_axis(live, order, axis=1)
    rest = np.maximum(1 - np.exp(top - lse).sum(axis=1, keepdims=True), 1e-12)
    dense = np.broadcast_to(lse + np.log(rest / (live.shape[1] - top_k)), live.shape).copy()
    np.put_along_axis(dense, order, top.astype(np.float64), axis=1)
    return dense.astype(np.float32)


def total_variation(
    decoded: NDArray[np.float32], live: NDArray[np.float32], temperature: float
) -> NDArray[np.float64]:
    """Half the L1 distance between the softmaxes at a temperature [n]: 0 = equal, 1 = disjoint."""
    return 0.5 * np.abs(_softmax(decoded, temperature) - _softmax(live, temperature)).sum(axis=1)


def _softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


def measure(train: Digits, test: Digits, places: int, steps: int = STEPS) -> list[list[object]]:
    """The rows of one teacher."""
    model = train_teacher(train, places, steps)
    rng = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        calibration = model(train.combine(CALIBRATION, places, rng)[0]).numpy()
        images, labels = test.combine(HELD_OUT, places, rng)
        live = model(images)
    classes = live.shape[1]
    accuracy = float((live.argmax(1) == labels).float().mean())
    exact = live.numpy()
    candidates = {f"top-{k}, even tail": (even_tail(exact, k), 4.0 * k) for k in TOP_KS}
    for budget in BUDGETS:
        fitted = calibrate.fit(calibration, CodecRequest(bytes_per_view=budget))
        records = RecordEncoder(fitted.codec)(live).numpy()
        size = stored_bytes(records[:CHUNK], fitted.codec)
        candidates[f"kdcache, {budget:g} bytes"] = (
            fitted.codec.decode(fitted.codec.unpack(records)),
            size,
        )
    name = f"{classes:,} classes, {accuracy:.1%} top-1"
    return [
        [name, record, size, *_statistics(decoded, exact)] for record, (decoded, size) in candidates.items()
    ]


def _statistics(decoded: NDArray[np.float32], live: NDArray[np.float32]) -> list[float]:
    errors = [total_variation(decoded, live, temperature) for temperature in TEMPERATURES]
    return [
        float(value) for error in errors for value in (error.mean(), np.quantile(error, 0.99), error.max())
    ]


def main() -> None:
    """Train, encode, compare, report."""
    train, test = split_digits()
    rows = [row for places in (2, 3) for row in measure(train, test, places)]
    kinds = [f"T={temperature:g} {kind}" for temperature in TEMPERATURES for kind in ("mean", "p99", "max")]
    write_results(
        "tv_error",
        "Decoded dense logits of a real teacher against its live logits: total-variation error of "
        "softmax(logits / T)",
        ["teacher", "record", "bytes", *kinds],
        rows,
        f"Perceptrons trained {STEPS} steps on scikit-learn's digits side by side, with pixel noise {NOISE}; "
        f"{HELD_OUT:,} images of held-out digits. The codec was fitted to {CALIBRATION:,} other images. "
        "Bytes: of a view on disk, compressed. Even tail: the top K, unquantised, of two bytes each for the "
        "class and its value; the rest of the probability spread evenly at T=1.",
    )


if __name__ == "__main__":
    main()
