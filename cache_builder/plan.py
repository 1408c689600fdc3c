"""What a build will do, decided before the first image: sources, manifest without calibration, checks."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cache_builder import calibrate
from cache_builder.datasets import ImageSource, LimitedSource, open_source
from cache_builder.format.errors import ConfigError
from cache_builder.format.layout import index_bits
from cache_builder.format.manifest import (
    CalibrationSection,
    CodecSection,
    DataSection,
    Manifest,
    ProbeSection,
    TeacherSection,
    TilingSection,
    ViewsSection,
)
from cache_builder.format.writer import SampleTable
from cache_builder.forward import TeacherForward, resolve_device, resolve_precision
from cache_builder.settings import BuildSettings
from cache_builder.teachers import Preprocessing, Teacher, TeacherRequest, open_teacher
from cache_builder.views import Recipe, named, parse_recipe
from cache_builder.views.recipes import PadCropFlip, Plain, RrcFlip

TILE_VIEWS = 8
MAX_TILE_ROWS = 4096
_MIN_TILE_ROWS = 64
_TILES_WANTED = 8
_SMALL_IMAGE = 64
_CACHE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


@dataclass(frozen=True)
class Plan:
    """The parts of a build, ready to run."""

    settings: BuildSettings
    source: ImageSource
    recipe: Recipe
    forward: TeacherForward
    table: SampleTable
    manifest: Manifest
    """Without basis, step, probe and digests, which calibration adds."""
    workers: int

    @property
    def has_labels(self) -> bool:
        """Whether the teacher's accuracy can be told."""
        return bool((self.table.labels >= 0).any())


def make_plan(settings: BuildSettings) -> Plan:
    """Open data and teacher and check that they fit. Raises :class:`ConfigError` or :class:`DataError`."""
    _check_name(settings)
    recipe = parse_recipe(settings.recipe) if settings.recipe else None
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    source = open_source(settings.data)
    if settings.limit:
        source = LimitedSource(source, settings.limit)
    teacher = open_teacher(settings.teacher, _request(settings, source))
    wanted = teacher.preprocessing.overridden(settings.input_size, settings.mean, settings.std)
    recipe = fitted_recipe(recipe or default_recipe(settings.data, wanted), wanted)
    _check_views(settings.views, recipe)
    forward = TeacherForward(teacher.model, wanted.mean, wanted.std, device, precision)
    classes = forward.classes(wanted.input_size)
    labels, class_names = check_classes(settings, source, teacher, classes)
    manifest = Manifest(
        product_version=version("kdcache"),
        name=settings.cache_name,
        data=DataSection(spec=settings.data, samples=len(source), classes=classes, class_names=class_names),
        teacher=TeacherSection(
            spec=teacher.spec,
            weights=teacher.weights,
            weights_digest=teacher.digest,
            input_size=wanted.input_size,
            mean=wanted.mean,
            std=wanted.std,
            interpolation=wanted.interpolation,
            precision=precision,
        ),
        views=ViewsSection(count=settings.views, recipe=named(recipe), seed=settings.seed),
        codec=_codec(settings, len(source), classes),
        tiling=TilingSection(views=min(settings.views, TILE_VIEWS), rows=_tile_rows(settings, len(source))),
        calibration=CalibrationSection(pairs=0, logit_std=0.0, tail_error=0.0),
        probe=ProbeSection(pairs=(), libraries={}, tolerance=1.0),
        environment=_environment(device),
        digests={},
    )
    table = SampleTable.from_ids(source.ids, labels)
    return Plan(settings, source, recipe, forward, table, manifest, _workers(settings, device))


def default_recipe(data: str, preprocessing: Preprocessing) -> Recipe:
    """What is usual for the data: padded crops for 32-pixel images, no mirroring of digits, else rrc-flip."""
    kind = data.partition(":")[0]
    if kind == "digits":
        return PadCropFlip(flip=0.0)
    return PadCropFlip() if kind.startswith("cifar") or preprocessing.input_size < _SMALL_IMAGE else RrcFlip()


def fitted_recipe(recipe: Recipe, preprocessing: Preprocessing) -> Recipe:
    """``plain`` crops as the teacher's evaluation does, unless the user said how."""
    if isinstance(recipe, Plain) and "crop_fraction" not in recipe.model_fields_set:
        return Plain(crop_fraction=preprocessing.crop_fraction)
    return recipe


def check_classes(
    settings: BuildSettings, source: ImageSource, teacher: Teacher, classes: int
) -> tuple[NDArray[np.int32] | None, tuple[str, ...] | None]:
    """Labels and class names that fit the teacher's C logits; :class:`ConfigError` where they cannot."""
    if classes < 2:
        raise ConfigError(
            f"teacher {teacher.spec} has {classes} logit per image, expected one for each of two classes or "
            "more (a random head has as many as the data set has class folders)"
        )
    if teacher.class_names and len(teacher.class_names) != classes:
        raise ConfigError(
            f"teacher {teacher.spec} has {classes} logits, its weights name {len(teacher.class_names)} "
            "classes"
        )
    if settings.ignore_labels or not source.class_names:
        return None, teacher.class_names
    if len(source.class_names) != classes:
        raise ConfigError(
            f"teacher {teacher.spec} has {classes} logits, {settings.data} has {len(source.class_names)} "
            "classes: take a teacher of these classes, or --ignore-labels to store its logits without labels"
        )
    names = teacher.class_names
    if names and set(names) == set(source.class_names) and names != source.class_names:
        raise ConfigError(
            f"teacher {teacher.spec} and {settings.data} have the same class names in another order, so "
            "every label would be wrong: rename the class folders, or --ignore-labels"
        )
    return source.labels, names or source.class_names


def _request(settings: BuildSettings, source: ImageSource) -> TeacherRequest:
    classes = len(source.class_names) if source.class_names and not settings.ignore_labels else None
    return TeacherRequest(settings.weights, settings.seed, classes, _fallback(settings, source))


def _fallback(settings: BuildSettings, source: ImageSource) -> Preprocessing:
    """For a model that says nothing: the images' own size where they are small, else ImageNet's usual one."""
    if settings.data.partition(":")[0] == "imagefolder":
        return Preprocessing(input_size=224)
    side = max(source.read(0).image.shape[-2:])
    return Preprocessing(input_size=side, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop_fraction=1.0)


def _check_name(settings: BuildSettings) -> None:
    if not re.fullmatch(_CACHE_NAME, settings.cache_name):
        raise ConfigError(
            f"{settings.cache_name!r} cannot be the name of a cache: expected letters, digits, '.', '_' and "
            "'-', a letter or digit first; give one with --name"
        )


def _check_views(views: int, recipe: Recipe) -> None:
    most = recipe.max_views()
    if most is not None and views > most:
        name = named(recipe).name
        raise ConfigError(
            f"recipe {name!r} is deterministic: {views} views would be equal; use --views {most}"
        )


def _codec(settings: BuildSettings, samples: int, classes: int) -> CodecSection:
    """What is known before calibration: step and wide columns are fitted later."""
    top_k = min(settings.top_k or calibrate.default_top_k(classes), classes)
    rank = settings.tail_rank or calibrate.default_tail_rank(classes)
    if settings.tail_rank and settings.tail_rank >= classes:
        raise ConfigError(f"--tail-rank {settings.tail_rank}: the teacher has {classes} classes; use fewer")
    # The pairs span one dimension less than there are of them.
    rank = 0 if top_k == classes else min(rank, max(1, calibrate.pair_count(samples, settings.views) - 1))
    return CodecSection(
        top_k=top_k,
        index_bits=index_bits(classes),
        tail_rank=rank,
        tail_wide=0,
        tail_step=1.0 if rank else 0.0,
    )


def _tile_rows(settings: BuildSettings, samples: int) -> int:
    """Some eight row blocks where the data set is small, so that a killed build loses little."""
    if settings.tile_rows:
        return min(settings.tile_rows, samples)
    block = -(-samples // _TILES_WANTED)
    rounded = -(-block // _MIN_TILE_ROWS) * _MIN_TILE_ROWS
    return min(rounded, MAX_TILE_ROWS, samples)


def _workers(settings: BuildSettings, device: torch.device) -> int:
    if settings.workers is not None:
        return settings.workers
    # A teacher on the CPU uses every core itself. On two (AMD EPYC, 2026-11-22) 128 views of resnet50 took
    # 9.2, 8.9 and 9.1 s with 0, 1 and 2 loader processes, 256 of resnet18 6.9, 6.1 and 6.1 s: no difference
    # beyond the noise, so one, which also hides slow disks.
    cores = torch.get_num_threads()
    return min(16, cores) if device.type == "cuda" else int(cores > 1 and _reads_files(settings.data))


def _reads_files(data: str) -> bool:
    return data.partition(":")[0] == "imagefolder"


def _environment(device: torch.device) -> dict[str, str]:
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    libraries = {name: version(name) for name in ("torch", "torchvision", "pillow", "numpy", "zarr")}
    return {"python": platform.python_version(), "device": accelerator, **libraries}


def check_output(out: str) -> None:
    """Refuse, before anything is computed, a path that holds something else or cannot be written."""
    path = Path(out)
    if not out.strip():
        raise ConfigError("--out is empty: expected the folder of the cache, such as vit_l.zarr")
    if "://" in out or (path / "zarr.json").exists():
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{out} exists and is not a cache; nothing was touched: choose another --out")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise ConfigError(f"--out {out}: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {out}: {there} cannot be written to (permissions, or a read-only disk)")
