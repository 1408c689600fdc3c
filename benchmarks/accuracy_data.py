"""What the students of ``benchmarks.accuracy`` see: views with the teacher's logits, and held-out pictures.

Four sets. ``glyphs`` and ``glyph_views``: rendered characters and the wide teacher of
``benchmarks.glyph_teacher``, held out by font. ``real_pictures``: those of ``benchmarks.real_folder`` in the
views of a default build with the logits of EfficientNet-Lite0; every fourth wallpaper and stamp is held out
with all that was cut from it. Nobody knows which of the teacher's 1,000 classes are right there: held-out
pictures have the live teacher's logits in the place of labels. ``real_features``: the same, as a network that
was trained before sees them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from benchmarks import glyph_teacher, teacher_views
from benchmarks.live_logits import VIEWS, Floats, captured, kept, plan_of
from benchmarks.real_pictures import lite0
from cache_builder.build.plan import Plan
from cache_builder.build.rendering import RenderTask, chunks
from cache_builder.build.running import rendered

SAMPLES, HELD_OUT = 8192, 8192
FEWER_SAMPLES, MOST_VIEWS = 2048, 32
"""Of ``glyph_views``."""
REAL_SIDE = 64
"""Pixels that a student of real pictures sees of 224."""
_LITE0 = "benchmarks.real_pictures:lite0"
_BATCH = 16


@dataclass(frozen=True)
class Data:
    """Views of the training pictures with the teacher's logits, and held-out pictures."""

    views: Tensor
    """uint8 or float32 in -1..1, [views, N, channels, S, S], or features [views, N, width]."""
    logits: Floats
    """[views, N, C]."""
    held_out: Tensor
    labels: Tensor | None = None
    """None where nobody knows them: the held-out logits are given then."""
    held_out_labels: Tensor | None = None
    held_out_logits: Tensor | None = None


def glyphs_folder() -> Path:
    """Where pictures and networks of glyphs are kept, as ``benchmarks.fidelity`` has them."""
    return Path(os.environ.get("BENCHMARKS_GLYPHS", "~/.cache/kdcache/glyphs")).expanduser()


def glyphs() -> Data:
    """8,192 characters in 8 views."""
    return _of_glyphs(SAMPLES, VIEWS)


def glyph_views() -> Data:
    """Fewer characters in as many views as there are epochs."""
    return _of_glyphs(FEWER_SAMPLES, MOST_VIEWS)


def _of_glyphs(samples: int, count: int) -> Data:
    folder = glyphs_folder()
    images, labels = glyph_teacher.load_pictures(folder / "train")
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(images))[:samples])
    held_out, held_out_labels = glyph_teacher.load_pictures(folder / "val")
    some = torch.from_numpy(np.random.default_rng(1).permutation(len(held_out))[:HELD_OUT])
    teacher = glyph_teacher.network(glyph_teacher.SHAPES["wide"])
    teacher.load_state_dict(load_file(folder / "wide.safetensors"))
    teacher.eval()
    views, logits = [], []
    for view in range(count):
        rng = torch.Generator().manual_seed(100 + view)
        views.append(glyph_teacher.augmented(images[rows], rng)[:, :1])
        with torch.inference_mode():
            parts = [teacher(part.expand(-1, 3, -1, -1)) for part in views[-1].split(512)]
        logits.append(torch.cat(parts).numpy())
    return Data(
        views=torch.stack(views),
        logits=np.stack(logits),
        held_out=held_out[some][:, :1].float() / 127.5 - 1,
        labels=labels[rows],
        held_out_labels=held_out_labels[some],
    )


def real_pictures() -> Data:
    """Real pictures without labels; logits and small pictures are made once and kept."""
    folder = teacher_views.folder()
    pictures = folder / "pictures"
    recorded = plan_of(_LITE0, f"imagefolder:{pictures}")
    rows = np.linspace(0, len(recorded.source) - 1, teacher_views.SAMPLES).astype(np.int64)
    logits = kept(folder / "lite0.npy", lambda: captured(recorded, rows))
    small = kept(folder / "lite0_small.npy", lambda: _small(recorded, rows, VIEWS))
    plain = plan_of(_LITE0, f"imagefolder:{pictures}", recipe="plain", views=1)
    others = np.flatnonzero(held_out_origins(plain.source.ids))
    live = kept(folder / "lite0_held_out.npy", lambda: captured(plain, others, 1))
    seen = kept(folder / "lite0_held_out_small.npy", lambda: _small(plain, others, 1))
    # In random order: calibration is fitted to the first of them, and the folder's order is by kind.
    learned = np.random.default_rng(0).permutation(np.setdiff1d(rows, others))
    places = np.searchsorted(rows, learned)
    return Data(
        views=torch.from_numpy(small[places].swapaxes(0, 1).copy()),
        logits=np.ascontiguousarray(logits[places].swapaxes(0, 1)),
        held_out=torch.from_numpy(seen[:, 0]),
        held_out_logits=torch.from_numpy(live[:, 0]),
    )


def real_features() -> Data:
    """The same pictures as a network sees them that was trained before, at :data:`REAL_SIDE` pixels.

    It is the trunk of the teacher, which at so few pixels errs as a smaller network does.
    """
    data, folder = real_pictures(), teacher_views.folder()
    learned = kept(folder / "lite0_features.npy", lambda: _features(data.views.flatten(0, 1)))
    held_out = kept(folder / "lite0_held_out_features.npy", lambda: _features(data.held_out))
    views = torch.from_numpy(learned).float().unflatten(0, data.views.shape[:2])
    return replace(data, views=views, held_out=torch.from_numpy(held_out).float())


def held_out_origins(ids: Sequence[str]) -> NDArray[np.bool_]:
    """Every fourth origin, all that was made of it together."""
    origins = [sample.rpartition("-")[0] for sample in ids]
    number = {origin: index for index, origin in enumerate(dict.fromkeys(origins))}
    return np.array([number[origin] % 4 == 3 for origin in origins])


def _small(plan: Plan, rows: NDArray[np.int64], views: int) -> NDArray[np.uint8]:
    """The views as a small student sees them: uint8 [rows, views, 3, S, S]."""
    out = []
    for batch in rendered(plan, chunks([RenderTask(int(row), 0, views) for row in rows], _BATCH)):
        images = batch.images.flatten(0, 1).float()
        seen = functional.interpolate(images, (REAL_SIDE,) * 2, mode="bilinear", antialias=True)
        out.append(seen.round().to(torch.uint8).unflatten(0, batch.images.shape[:2]).numpy())
    return np.concatenate(out)


@torch.inference_mode()
def _features(pictures: Tensor) -> NDArray[np.float16]:
    """What the teacher's trunk makes of small pictures: [n, 1280]."""
    model = lite0().eval()
    mean, std = (model.pretrained_cfg[name][0] for name in ("mean", "std"))
    out = []
    for part in pictures.split(_BATCH):
        seen = functional.interpolate(part.float() / 255, (2 * REAL_SIDE,) * 2, mode="bilinear")
        out.append(model.forward_head(model.forward_features((seen - mean) / std), pre_logits=True).half())
    return torch.cat(out).numpy()
