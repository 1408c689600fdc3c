"""What a build will do, decided before the first image: sources, manifest without calibration, checks."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version

import torch
from torch import Tensor

from cache_builder.build.classes import StoredClasses, fit_labels, fit_stored
from cache_builder.build.forward import TeacherForward
from cache_builder.build.names import check_codec_name
from cache_builder.build.output import check_name
from cache_builder.build.preflight import opened_source
from cache_builder.build.settings import BuildSettings
from cache_builder.calibration import calibrate
from cache_builder.console.limits import DEFAULT_LOSE
from cache_builder.console.names import Precision
from cache_builder.datasets import ImageSource, decoding_of, left_out_of
from cache_builder.format.class_names import ClassNames
from cache_builder.format.errors import ConfigError
from cache_builder.format.manifest import (
    LOGITS,
    CalibrationSection,
    CodecRequest,
    DataSection,
    ImageInput,
    LogitsOutput,
    Manifest,
    NoProbe,
    OnePosition,
    RequestSection,
    TeacherSection,
    TilingSection,
    ViewsSection,
    differing_settings,
)
from cache_builder.format.root import read_manifest
from cache_builder.format.writer import SampleTable
from cache_builder.teachers import Preprocessing, Teacher, TeacherRequest, combined, open_teacher
from cache_builder.tensors.device import resolve_device, resolve_precision
from cache_builder.views import Recipe, named, parse_recipe
from cache_builder.views.recipes import Augment, Erased, PadCropFlip, Plain, RrcFlip
from cache_builder.views.replay import Replay

TILE_VIEWS = 8
MAX_TILE_ROWS = 4096
_MIN_TILE_ROWS = 64
_TILES_WANTED = 8
_SMALL_IMAGE = 64
# What a record took at most where nobody said so, in releases that had no --lose.
_FORMER_BYTES_PER_VIEW = 64.0


@dataclass(frozen=True)
class Plan:
    """The parts of a build, ready to run."""

    settings: BuildSettings
    source: ImageSource
    forward: TeacherForward
    table: SampleTable
    manifest: Manifest
    """Without basis, step, probe and digests, which calibration adds."""
    workers: int
    data_names: tuple[str, ...] | None = None
    """Class names of the data where its labels are the teacher's by their position alone."""
    remembered: dict[tuple[int, ...], list[Tensor]] = field(default_factory=dict)
    """Live logits that calibration computed in the build's own batches, by first view and rows of a batch."""

    @cached_property
    def replay(self) -> Replay:
        """The views of the cache that is built, as the manifest names them."""
        return Replay.of(self.manifest)

    @property
    def has_labels(self) -> bool:
        """Whether the teacher's accuracy can be told."""
        return bool((self.table.labels >= 0).any())


def make_plan(
    settings: BuildSettings, stored: StoredClasses | None = None, source: ImageSource | None = None
) -> Plan:
    """Open data and teacher and check that they fit. Raises :class:`ConfigError` or :class:`DataError`.

    ``stored``: of a cache that is there already, whose classes the labels are then fitted to. ``source``: the
    data set, where it is open already.
    """
    check_name(settings.cache_name)
    if settings.codec is not None:
        check_codec_name(settings.codec)
    recipe = parse_recipe(settings.recipe) if settings.recipe else None
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    source = source or opened_source(settings)
    teacher = _open_teacher(settings, _head_classes(settings, source, stored), source)
    wanted = teacher.preprocessing
    usual = default_recipe(source, wanted)
    recipe = fitted_recipe(based_on(recipe, usual) if recipe else usual, wanted)
    _check_views(settings.views, recipe)
    forward = TeacherForward(teacher.model, wanted.mean, wanted.std, device, precision, teacher.outputs)
    classes = forward.classes(wanted.input_size)
    fitted = fit_stored(stored, source) if stored else fit_labels(settings, source, teacher, classes)
    settings = settings.model_copy(update={"codec": _codec_name(settings)})
    request = _codec_request(settings, classes, precision)
    name = settings.codec or calibrate.usual_codec(classes, request)
    manifest = Manifest(
        product_version=version("kdcache"),
        name=settings.cache_name,
        data=DataSection(
            spec=settings.data,
            samples=len(source),
            matched=fitted.matched,
            own_classes=len(fitted.own_class_names or ()),
        ),
        teacher=TeacherSection(
            spec=teacher.spec,
            weights=teacher.weights,
            weights_digest=teacher.digest,
            precision=precision,
        ),
        input=ImageInput(
            size=wanted.input_size,
            mean=wanted.mean,
            std=wanted.std,
            interpolation=wanted.interpolation,
            decoding=decoding_of(source) or 1,
        ),
        outputs={
            LOGITS: LogitsOutput(
                width=classes,
                named=bool(fitted.class_names),
                codec=calibrate.calibrator(name).provisional(classes, request),
            )
        },
        positions=OnePosition(),
        views=ViewsSection(count=settings.views, recipe=named(recipe), seed=settings.seed),
        tiling=TilingSection(views=min(settings.views, TILE_VIEWS), rows=_tile_rows(settings, len(source))),
        calibration=CalibrationSection(pairs=0, logit_std=0.0, tail_error=0.0),
        probe=NoProbe(),
        requested=_requested(settings, request),
        environment=_environment(device) | dict(fitted.told) | _told(source, wanted),
        digests={},
    )
    names = ClassNames(fitted.class_names, fitted.own_class_names)
    table = SampleTable.from_ids(source.ids, fitted.labels, names)
    workers = _workers(settings, source, device)
    return Plan(settings, source, forward, table, manifest, workers, fitted.data_names)


def as_there(settings: BuildSettings, there: Manifest | None) -> BuildSettings:
    """Settings as those of the cache that is continued, or the part that this one is like, unless said.

    ``there``: the manifest of the former. These are the rule of decoding, and the size of records that was
    the default of earlier releases.
    """
    stored = there or (read_manifest(settings.like) if settings.like else None)
    if stored is None:
        return settings
    update: dict[str, object] = {}
    if settings.decoding is None:
        update["decoding"] = stored.input.decoding
    is_free = settings.lose is None and settings.bytes_per_view is None and not settings.exact
    if is_free and stored.requested.codec.bytes_per_view == _FORMER_BYTES_PER_VIEW:
        update["bytes_per_view"] = _FORMER_BYTES_PER_VIEW
    if _is_usual(settings, stored.requested.codec):
        update["lose"] = stored.requested.codec.lose
    return settings.model_copy(update=update)


def _is_usual(settings: BuildSettings, stored: CodecRequest) -> bool:
    """Whether both ask for the default loss, whether that was typed or not."""
    if settings.exact or settings.bytes_per_view is not None or stored.bytes_per_view is not None:
        return False
    return {settings.lose, stored.lose} <= {None, DEFAULT_LOSE}


def _told(source: ImageSource, seen: Preprocessing) -> dict[str, str]:
    """For the manifest's ``environment``: what was done with the pictures, and which there are none of."""
    left_out = left_out_of(source)
    return {"pictures": seen.in_words()} | ({"left out": left_out} if left_out else {})


def default_recipe(source: ImageSource, preprocessing: Preprocessing) -> Recipe:
    """What is usual for the data: padded crops of small images, else rrc-flip; no mirroring of writing."""
    is_small = min(source.side or preprocessing.input_size, preprocessing.input_size) < _SMALL_IMAGE
    kind = PadCropFlip if is_small else RrcFlip
    return kind() if source.mirrors else kind(flip=0.0)


def fitted_recipe(recipe: Recipe, preprocessing: Preprocessing) -> Recipe:
    """``plain`` crops as the teacher's evaluation does, unless the user said how."""
    if isinstance(recipe, Plain) and "crop_fraction" not in recipe.model_fields_set:
        return Plain(crop_fraction=preprocessing.crop_fraction)
    return recipe


def based_on(recipe: Recipe, usual: Recipe) -> Recipe:
    """A recipe of strong views begins with the crops usual for the data, unless the user said how."""
    is_open = isinstance(recipe, Augment) and "base" not in recipe.model_fields_set
    # rrc-erase names its crops.
    return recipe.model_copy(update={"base": usual}) if is_open and not isinstance(recipe, Erased) else recipe


def _head_classes(settings: BuildSettings, source: ImageSource, stored: StoredClasses | None) -> int | None:
    """Outputs of a head that is made for the data; None where it is not made for it."""
    if settings.ignore_labels or settings.class_map or not source.class_names:
        return None
    return stored.classes if stored else len(source.class_names)


def _open_teacher(settings: BuildSettings, classes: int | None, source: ImageSource) -> Teacher:
    """The teacher, or the ensemble of several, that sees what the user asked for."""
    members = []
    for index, (name, origin) in enumerate(settings.members):
        teacher = open_teacher(name, _request(settings, classes, source, origin, index))
        seen = teacher.preprocessing.overridden(settings.input_size, settings.mean, settings.std)
        members.append(replace(teacher, preprocessing=seen))
    return combined(members)


def _request(
    settings: BuildSettings, classes: int | None, source: ImageSource, weights: str, index: int
) -> TeacherRequest:
    """``index``: of the member in an ensemble, so that two random ones of a kind differ."""
    seed = (settings.seed + index) % 2**64
    return TeacherRequest(weights, seed, classes, _fallback(source), settings.input_size)


def _fallback(source: ImageSource) -> Preprocessing:
    """For a model that says nothing: the images' own size where they have one, else ImageNet's usual one."""
    if source.side is None:
        return Preprocessing(input_size=224)
    return Preprocessing(input_size=source.side, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop_fraction=1.0)


def _check_views(views: int, recipe: Recipe) -> None:
    most = recipe.max_views()
    if most is not None and views > most:
        name = named(recipe).name
        raise ConfigError(
            f"recipe {name!r} is deterministic: {views} views would be equal; use --views {most}"
        )
    if views < recipe.min_views():
        name = named(recipe).name
        raise ConfigError(
            f"recipe {name!r} keeps view 0 ordinary (crop and flip), so --views {views} would hold nothing "
            f"of it; use --views {recipe.min_views()} or more"
        )


def _codec_name(settings: BuildSettings) -> str | None:
    """The codec that the user named, also by --exact."""
    if settings.exact and settings.codec not in (None, "all-logits"):
        raise ConfigError(f"--exact is the codec all-logits, and --codec {settings.codec} another: give one")
    return "all-logits" if settings.exact else settings.codec


def _codec_request(settings: BuildSettings, classes: int, precision: Precision) -> CodecRequest:
    """What the codec's calibrator is asked for."""
    if settings.tail_rank and settings.tail_rank >= classes:
        raise ConfigError(f"--tail-rank {settings.tail_rank}: the teacher has {classes} classes; use fewer")
    if settings.lose is not None and settings.bytes_per_view is not None:
        raise ConfigError(
            "--lose says what a record may lose and --bytes-per-view what it may take: give one of them"
        )
    top_k = None if settings.top_k is None else min(settings.top_k, classes)
    request = CodecRequest(
        lose=settings.lose,
        bytes_per_view=settings.bytes_per_view,
        top_k=top_k,
        tail_rank=settings.tail_rank,
        tail_step=settings.tail_step,
        value_step=settings.value_step,
        values=("bfloat16" if precision == "bf16" else "float16") if settings.exact else None,
    )
    return calibrate.checked_request(classes, request, settings.codec)


def _requested(settings: BuildSettings, codec: CodecRequest) -> RequestSection:
    """What the user typed, as it is kept in the cache."""
    return RequestSection(
        teacher=settings.teacher,
        weights=tuple(weights for _, weights in settings.members),
        data=settings.data,
        recipe=settings.recipe,
        precision=None if settings.precision == "auto" else settings.precision,
        input_size=settings.input_size,
        mean=settings.mean,
        std=settings.std,
        class_map=settings.class_map,
        ignore_labels=settings.ignore_labels,
        codec=codec,
    )


def _tile_rows(settings: BuildSettings, samples: int) -> int:
    """Some eight row blocks where the data set is small, so that a killed build loses little."""
    if settings.tile_rows:
        return min(settings.tile_rows, samples)
    block = -(-samples // _TILES_WANTED)
    rounded = -(-block // _MIN_TILE_ROWS) * _MIN_TILE_ROWS
    return min(rounded, MAX_TILE_ROWS, samples)


def _workers(settings: BuildSettings, source: ImageSource, device: torch.device) -> int:
    if settings.workers is not None:
        return settings.workers
    # A teacher on the CPU uses every core itself. On two (AMD EPYC, 2026-11-22) 128 views of resnet50 took
    # 9.2, 8.9 and 9.1 s with 0, 1 and 2 loader processes, 256 of resnet18 6.9, 6.1 and 6.1 s: no difference
    # beyond the noise, so one, which also hides slow disks.
    cores = torch.get_num_threads()
    return min(16, cores) if device.type == "cuda" else int(cores > 1 and source.reads_files)


def _environment(device: torch.device) -> dict[str, str]:
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    libraries = {name: version(name) for name in ("torch", "torchvision", "pillow", "numpy", "zarr")}
    return {"python": platform.python_version(), "device": accelerator, **libraries}


def check_codec(settings: BuildSettings, stored: Manifest, where: str) -> None:
    """Raise :class:`ConfigError` where ``--codec`` names another codec than a cache that is there has."""
    if settings.codec not in (None, stored.codec.name):
        raise ConfigError(
            f"{where} has records of codec {stored.codec.name}, and --codec {settings.codec} asks for "
            "others: leave --codec out, or use another --out"
        )


def check_settings(plan: Plan, stored: Manifest) -> None:
    """Raise :class:`ConfigError` where the cache that is there was built by other settings."""
    check_codec(plan.settings, stored, plan.settings.out)
    refuse_other(plan, stored, differing_settings(stored, plan.manifest))


def refuse_other(plan: Plan, stored: Manifest, differing: list[str]) -> None:
    """Raise :class:`ConfigError` naming what differs, ``path: stored -> asked for``, if anything does."""
    if differing:
        raise ConfigError(
            f"{plan.settings.out} holds a cache of other settings (stored -> asked for):\n  "
            + "\n  ".join(differing)
            + "\nuse the stored settings to continue it, or another --out"
            + (f"; it was built as --name {stored.name}" if stored.name != plan.manifest.name else "")
        )
