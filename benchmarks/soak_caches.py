"""Caches for the soak, and what each of their records is by an undisturbed copy."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from benchmarks.caches import write_large_cache
from cache_builder.build.pipeline import build
from cache_builder.build.settings import BuildSettings
from cache_builder.console.progress import BuildProgress
from cache_builder.exchange.extend import extend
from cache_builder.exchange.settings import ExtendSettings
from cache_builder.format import open_cache
from cache_builder.format.codecs.record import Part

STEADY, GROWS, LEAVES, BITTEN = "steady", "grows", "leaves", "bitten"
NAMES = (STEADY, GROWS, LEAVES, BITTEN)
CLASSES, SIDE = 100, 8
VIEWS, MORE_VIEWS = 4, 6
_STEADY_ROWS, _STEADY_VIEWS = 60_000, 4


def linear() -> nn.Module:
    """A teacher of more classes than a cache stores one by one."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))


@dataclass
class Truth:
    """The records of one cache_id, by view and part: uint8 [N, bytes]."""

    views: int
    rows: int
    records: dict[tuple[int, Part], NDArray[np.uint8]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Truth:
        """Read all of an undisturbed cache."""
        cache = open_cache(path)
        views, rows = cache.manifest.views.count, cache.manifest.data.samples
        parts = [Part.WHOLE, Part.OWN, Part.SHARED] if cache.layout.shared_bytes else [Part.WHOLE]
        found = cls(views, rows)
        for view in range(views):
            for part in parts:
                found.records[view, part] = cache.read_positions(view, range(rows), part=part)
        return found

    @property
    def parts(self) -> list[Part]:
        """Those that a client may ask for."""
        return sorted({part for _, part in self.records})


@dataclass(frozen=True)
class Scene:
    """The folders of a soak: ``served`` is disturbed, ``kept`` is not."""

    served: Path
    kept: Path
    truths: dict[str, Truth]
    """By cache_id."""
    ids: dict[str, tuple[str, ...]]
    """cache_ids that a name may have, the first at the beginning."""

    def path(self, name: str) -> Path:
        """Where a served cache lies; that which leaves is alone in a folder, as on a disk of its own."""
        folder = self.served / "disk" if name == LEAVES else self.served
        return folder / f"{name}.zarr"

    @property
    def arguments(self) -> list[str]:
        """What the server is given to serve."""
        return [f"{name}={self.path(name)}" for name in NAMES]


def prepare(folder: Path) -> Scene:
    """Build all of them; a minute."""
    served, kept = folder / "served", folder / "kept"
    (served / "disk").mkdir(parents=True)
    kept.mkdir()
    write_large_cache(kept / "steady.zarr", _STEADY_ROWS, _STEADY_VIEWS)
    for seed, name in enumerate((GROWS, LEAVES, BITTEN)):
        _build(kept / f"{name}.zarr", name, seed)
    shutil.copytree(kept / "grows.zarr", kept / "grown.zarr")
    settings = ExtendSettings(cache=str(kept / "grown.zarr"), views=MORE_VIEWS, device="cpu", workers=0)
    with BuildProgress(Console(file=io.StringIO())) as progress:
        extend(settings, progress)
    ids = {name: (_id(kept / f"{name}.zarr"),) for name in NAMES}
    ids[GROWS] += (_id(kept / "grown.zarr"),)
    truths = {_id(path): Truth.of(path) for path in sorted(kept.iterdir())}
    scene = Scene(served, kept, truths, ids)
    for name in NAMES:
        shutil.copytree(kept / f"{name}.zarr", scene.path(name))
    return scene


def _build(out: Path, name: str, seed: int) -> None:
    settings = BuildSettings(
        teacher="benchmarks.soak_caches:linear", weights="random", data="digits:train", out=str(out),
        name=name, views=VIEWS, recipe="pad-crop-flip", input_size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3,
        ignore_labels=True, workers=0, device="cpu", seed=seed, tile_rows=128, batch_size=128, lose=0.02,
        codec="joint-sketch",
    )  # fmt: skip
    with BuildProgress(Console(file=io.StringIO())) as progress:
        build(settings, progress)


def _id(path: Path) -> str:
    found = open_cache(path).manifest.cache_id
    assert found is not None
    return found


def put_in_place(scene: Scene, name: str, kept: str) -> None:
    """Another cache takes the place of a served one, as ``kdcache extend`` does it: by two renames."""
    place, new = scene.path(name), scene.served / f".{name}.new"
    shutil.copytree(scene.kept / f"{kept}.zarr", new)
    old = scene.served / f".{name}.old"
    place.rename(old)
    new.rename(place)
    shutil.rmtree(old)
