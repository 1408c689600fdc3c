"""What a record costs a student: trained to the end on records of several sizes, beside what they stand for.

    python -m benchmarks accuracy           some runs at a time: every one is kept when it ends

Students of 482 rendered characters learn from the wide teacher's logits of eight views: as they are (what a
live teacher gives, the views being the same), decoded from our records, from the ten largest with an even
tail, of one fixed view; and from hard labels alone. Each figure is the mean over seeds of the top-1 on
held-out fonts, with the difference to dense logits of the same seed and its 95 % interval (t distribution).
``KDCACHE_ACCURACY_RUNS`` bounds how many runs one call makes; the folder is that of ``benchmarks.fidelity``.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from benchmarks import glyph_teacher
from benchmarks.encodings import even_tail, top_log_probs
from benchmarks.report import write_results
from cache_builder.calibration import calibrate
from cache_builder.calibration.contract import Scope
from cache_builder.calibration.fidelity import stored_bytes
from cache_builder.format.manifest import CodecRequest
from kdcache import make_loss

Floats = NDArray[np.float32]
SAMPLES, HELD_OUT, VIEWS, EPOCHS, BATCH, SEEDS = 8192, 8192, 8, 12, 128, 3
STUDENT = glyph_teacher.Shape(12, 96, EPOCHS)
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "kd T=4": ("kd", {"temperature": 4.0}),
    "kd T=1": ("kd", {"temperature": 1.0}),
    "mse": ("mse", {}),
}
_LOST = (0.2, 0.05, 0.02, 0.005)
_FITTED = 512
# Of the t distribution with two degrees of freedom.
_T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


@dataclass(frozen=True)
class Data:
    """Views of the training pictures with the teacher's logits, and held-out pictures."""

    views: Tensor
    """float32 [views, N, 1, 32, 32]."""
    labels: Tensor
    logits: Floats
    """[views, N, C]."""
    held_out: Tensor
    held_out_labels: Tensor


@dataclass(frozen=True)
class Teaching:
    """What a student is given in the place of live logits."""

    name: str
    make: Callable[[Floats], tuple[Floats, float]]
    """Logits [views, N, C] to what is decoded of them, and bytes a view."""
    one_view: bool = False


def dense(logits: Floats) -> tuple[Floats, float]:
    """As they are; what fp16 takes."""
    return logits, 2.0 * logits.shape[2]


def ours(lose: float) -> Callable[[Floats], tuple[Floats, float]]:
    """Decoded from records that lose so much."""

    def make(logits: Floats) -> tuple[Floats, float]:
        by_sample = np.ascontiguousarray(logits.swapaxes(0, 1))
        flat = by_sample.reshape(-1, logits.shape[2])
        found = calibrate.fit(
            flat[: _FITTED * VIEWS], CodecRequest(lose=lose), "joint-sketch", Scope(VIEWS, len(flat))
        )
        codec = found.codec
        parts = [codec.encode(part, VIEWS) for part in np.split(flat, len(flat) // 1024)]
        size = stored_bytes(codec.pack(parts[0]), codec, VIEWS)
        decoded = np.concatenate([codec.decode(part) for part in parts])
        return np.ascontiguousarray(decoded.reshape(by_sample.shape).swapaxes(0, 1)), size

    return make


def largest(count: int) -> Callable[[Floats], tuple[Floats, float]]:
    """The largest alone, all others alike, as published caches keep them (fp16 and int16)."""

    def make(logits: Floats) -> tuple[Floats, float]:
        flat = logits.reshape(-1, logits.shape[2])
        decoded = even_tail(*top_log_probs(flat, count), logits.shape[2])
        return decoded.reshape(logits.shape), 4.0 * count

    return make


TEACHINGS = (
    Teaching("dense logits", dense),
    *(Teaching(f"ours, .{round(lose * 1000):03d} lost", ours(lose)) for lose in _LOST),
    Teaching("top 10, even tail", largest(10)),
    Teaching("dense, one fixed view", dense, one_view=True),
)


def main() -> None:
    """Run what has not been run, then the table of what there is."""
    folder = Path(os.environ.get("KDCACHE_GLYPHS", Path.home() / ".cache/kdcache/glyphs"))
    kept = folder / "accuracy.jsonl"
    todo = [run for run in _runs() if _key(*run) not in _done(kept)]
    most = int(os.environ.get("KDCACHE_ACCURACY_RUNS", len(todo)))
    data = _data(folder) if todo[:most] else None
    given: dict[str, tuple[Floats, float]] = {}
    for seed, teaching, loss in todo[:most]:
        assert data is not None
        if teaching is not None and teaching.name not in given:
            given[teaching.name] = teaching.make(data.logits)
        logits, size = given[teaching.name] if teaching else (data.logits, 0.0)
        began = time.process_time()
        top1 = _trained(data, logits, teaching, loss, seed)
        row = {"key": _key(seed, teaching, loss), "top1": top1, "bytes": size}
        with kept.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{row['key']}: {top1:.2%}, {time.process_time() - began:.0f} s of processor", flush=True)
    _report(_done(kept))


Run = tuple[int, Teaching | None, str]


def _runs() -> Iterator[Run]:
    """All of them, the most telling first."""
    for loss in LOSSES:
        for seed in range(SEEDS):
            if loss == "kd T=4":
                yield seed, None, loss
            for teaching in TEACHINGS:
                yield seed, teaching, loss


def _key(seed: int, teaching: Teaching | None, loss: str) -> str:
    return f"{teaching.name} | {loss} | {seed}" if teaching else f"hard labels | | {seed}"


def _done(kept: Path) -> dict[str, dict[str, Any]]:
    if not kept.is_file():
        return {}
    return {row["key"]: row for row in map(json.loads, kept.read_text().splitlines())}


def _data(folder: Path) -> Data:
    images, labels = glyph_teacher.load_pictures(folder / "train")
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(images))[:SAMPLES])
    held_out, held_out_labels = glyph_teacher.load_pictures(folder / "val")
    some = torch.from_numpy(np.random.default_rng(1).permutation(len(held_out))[:HELD_OUT])
    teacher = glyph_teacher.network(glyph_teacher.SHAPES["wide"])
    teacher.load_state_dict(load_file(folder / "wide.safetensors"))
    teacher.eval()
    views, logits = [], []
    for view in range(VIEWS):
        rng = torch.Generator().manual_seed(100 + view)
        views.append(glyph_teacher.augmented(images[rows], rng)[:, :1])
        with torch.inference_mode():
            parts = [teacher(part.expand(-1, 3, -1, -1)) for part in views[-1].split(512)]
        logits.append(torch.cat(parts).numpy())
    return Data(
        torch.stack(views),
        labels[rows],
        np.stack(logits),
        held_out[some][:, :1].float() / 127.5 - 1,
        held_out_labels[some],
    )


def _trained(data: Data, logits: Floats, teaching: Teaching | None, loss: str, seed: int) -> float:
    """Top-1 on held-out pictures after the last epoch."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(1000 + seed)
    model = glyph_teacher.network(STUDENT)
    steps = EPOCHS * (SAMPLES // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    distil = make_loss(LOSSES[loss][0], LOSSES[loss][1])
    # A squared error of logits is far larger than a divergence of probabilities.
    weight = 1.0 / float(logits.var()) if loss == "mse" else 1.0
    for epoch in range(EPOCHS):
        view = 0 if teaching and teaching.one_view else epoch % VIEWS
        order = torch.randperm(SAMPLES, generator=rng)
        for chosen in order.split(BATCH):
            if len(chosen) < BATCH:
                continue
            student = model(data.views[view, chosen].expand(-1, 3, -1, -1))
            total = functional.cross_entropy(student, data.labels[chosen])
            if teaching is not None:
                teacher = torch.from_numpy(logits[view][chosen.numpy()])
                total = 0.1 * total + 0.9 * weight * distil(student, teacher, data.labels[chosen])
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        parts = [model(part.expand(-1, 3, -1, -1)).argmax(1) for part in data.held_out.split(512)]
    return float((torch.cat(parts) == data.held_out_labels).float().mean())


def _report(done: dict[str, dict[str, Any]]) -> None:
    rows = []
    for loss in LOSSES:
        hard = [row for seed in range(SEEDS) if (row := done.get(f"hard labels | | {seed}"))]
        if hard:
            rows.append([loss, "hard labels", 0, *_figures(hard, loss, done)])
        for teaching in TEACHINGS:
            found = [row for seed in range(SEEDS) if (row := done.get(_key(seed, teaching, loss)))]
            if found:
                rows.append([loss, teaching.name, round(found[0]["bytes"], 1), *_figures(found, loss, done)])
    columns = ["loss", "student learns from", "bytes a view", "seeds", "top-1 %", "to dense", "95 % interval"]
    notes = (
        f"Wide glyph teacher, 482 classes; {SAMPLES:,} training pictures x {VIEWS} views, {EPOCHS} epochs, "
        ".9 of the loss + .1 cross-entropy (mse divided by the logits' variance); top-1 on "
        f"{HELD_OUT:,} pictures of other fonts. Differences are paired by seed."
    )
    write_results("accuracy", "What a record costs a student", columns, rows, notes)


def _figures(found: list[dict[str, Any]], loss: str, done: dict[str, dict[str, Any]]) -> list[object]:
    """Seeds, mean, mean difference to dense logits of the same seed, and half of its interval."""
    top1 = [100 * row["top1"] for row in found]
    base = {
        row["key"].rpartition("| ")[2]: row
        for key, row in done.items()
        if key.startswith(f"dense logits | {loss}")
    }
    paired = [
        100 * (row["top1"] - base[seed]["top1"])
        for row in found
        if (seed := row["key"].rpartition("| ")[2]) in base
    ]
    if len(paired) < 2:
        return [len(top1), round(float(np.mean(top1)), 2), None, None]
    half = _T_95.get(len(paired), 2.0) * float(np.std(paired, ddof=1)) / math.sqrt(len(paired))
    return [len(top1), round(float(np.mean(top1)), 2), round(float(np.mean(paired)), 2), round(half, 2)]


if __name__ == "__main__":
    main()
