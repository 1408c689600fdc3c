"""The live logits that records of real teachers are measured on: 8 views of every sample, in two halves.

``lite0``: EfficientNet-Lite0 with its published ImageNet-1k weights on the pictures of
``benchmarks.real_folder``, in the views of a default build. ``narrow`` and ``wide``: the glyph teachers on
their own views. Everything is made on the first use and kept in a folder (BENCHMARKS_REAL, by default
``~/.cache/kdcache/real``; pictures and networks of glyphs in BENCHMARKS_GLYPHS, as ``benchmarks.fidelity``
has them).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from benchmarks import glyph_teacher
from benchmarks.fidelity import prepare
from benchmarks.gradients import Batches
from benchmarks.live_logits import VIEWS, Floats, captured, kept, plan_of
from benchmarks.real_folder import write_folder

SAMPLES = 2000
GLYPH_SAMPLES = 1536
GRADIENTS = 512
"""Held-out samples that gradients are compared on."""
_STUDENT_SIDE = 56
"""Pixels that the student of Lite0 sees of 224."""


@dataclass(frozen=True)
class TeacherViews:
    """Logits [N, V, C] of the samples that codecs are fitted to and of others that they are measured on."""

    name: str
    fit: Floats
    held: Floats
    batches: Batches
    """The first of the held-out samples, as gradients need them."""

    @property
    def classes(self) -> int:
        """C."""
        return int(self.held.shape[2])


def of_teacher(name: str) -> TeacherViews:
    """What is kept of a teacher, made where it is not there."""
    return lite0() if name == "lite0" else of_glyphs(name)


def folder() -> Path:
    """Where pictures and logits are kept."""
    return Path(os.environ.get("BENCHMARKS_REAL", "~/.cache/kdcache/real")).expanduser()


def lite0() -> TeacherViews:
    """The halves have no wallpaper and no stamp in common: crops of one picture are alike."""
    pictures = folder() / "pictures"
    if not pictures.is_dir():
        print(f"{write_folder(pictures):,} pictures", flush=True)
    plan = plan_of("benchmarks.real_pictures:lite0", f"imagefolder:{pictures}")
    rows = np.linspace(0, len(plan.source) - 1, SAMPLES).astype(np.int64)
    logits = kept(folder() / "lite0.npy", lambda: captured(plan, rows))
    fitted = half_of_origins([plan.source.ids[row] for row in rows])
    shown = np.flatnonzero(~fitted)[:: max(1, (~fitted).sum() // GRADIENTS)][:GRADIENTS]
    student = kept(folder() / "lite0_student.npy", lambda: captured(plan, rows[shown], 2, _coarse))
    return halves("lite0", logits, fitted, shown, student.swapaxes(0, 1), None)


def of_glyphs(name: str) -> TeacherViews:
    """Training pictures under augmentation, as a cache has them."""
    glyphs = Path(os.environ.get("BENCHMARKS_GLYPHS", "~/.cache/kdcache/glyphs")).expanduser()
    prepare(glyphs, (name, "student"))
    images, labels = glyph_teacher.load_pictures(glyphs / "train")
    rows = np.random.default_rng(0).permutation(len(images))[:GLYPH_SAMPLES]

    def seen_by(network: str, views: int) -> Floats:
        model = glyph_teacher.network(glyph_teacher.SHAPES[network])
        model.load_state_dict(load_file(glyphs / f"{network}.safetensors"))
        model.eval()
        return np.stack([glyph_teacher.logits_of(model, images[rows], 11 + v) for v in range(views)], axis=1)

    logits = kept(folder() / f"{name}.npy", lambda: seen_by(name, VIEWS))
    student = kept(folder() / "glyph_student.npy", lambda: seen_by("student", 2))
    fitted = np.arange(len(rows)) % 2 == 0
    shown = np.flatnonzero(~fitted)[:GRADIENTS]
    return halves(name, logits, fitted, shown, student[shown].swapaxes(0, 1), labels[rows[shown]].numpy())


def halves(
    name: str,
    logits: Floats,
    fitted: NDArray[np.bool_],
    shown: NDArray[np.int64],
    student: Floats,
    labels: NDArray[np.int64] | None,
) -> TeacherViews:
    """``shown``: the rows that gradients are compared on, which come first of those held out.

    Labels that nobody knows are what the teacher thinks most likely of the views together.
    """
    rest = np.setdiff1d(np.flatnonzero(~fitted), shown)
    held = logits[np.concatenate([shown, rest])]
    live = held[: len(shown)]
    guessed = torch.from_numpy(live).softmax(-1).mean(1).argmax(-1).numpy()
    batches = Batches(student, live[:, :2].swapaxes(0, 1), guessed if labels is None else labels)
    return TeacherViews(name, logits[fitted], held, batches)


def half_of_origins(ids: Sequence[str]) -> NDArray[np.bool_]:
    """Which samples codecs are fitted to: every other origin, all that was made of it together."""
    origins = [sample.rpartition("-")[0] for sample in ids]
    number = {origin: index for index, origin in enumerate(dict.fromkeys(origins))}
    return np.array([number[origin] % 2 == 0 for origin in origins])


def _coarse(images: Tensor) -> Tensor:
    """What a student sees of the same views: it errs about what needs a sharp eye, as small networks do."""
    small = functional.interpolate(images.float(), (_STUDENT_SIDE,) * 2, mode="bilinear", antialias=True)
    return functional.interpolate(small, images.shape[-2:], mode="bilinear").round().to(torch.uint8)
