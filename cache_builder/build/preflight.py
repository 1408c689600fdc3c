"""What is wrong with a command is told before torch is imported, which takes up to half a minute.

Nothing here refuses what could work: what can only be known later is left to those who know it then.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache_builder.build.classes import fit_labels
from cache_builder.build.names import check_codec_name
from cache_builder.build.output import check_name, check_output
from cache_builder.build.settings import BuildSettings
from cache_builder.console.libraries import folder_of
from cache_builder.datasets import ImageSource, LimitedSource, check_there, imagenet_names, open_source
from cache_builder.datasets.pixels import NEWEST
from cache_builder.format.errors import FormatError
from cache_builder.format.locations import is_remote, local_path
from cache_builder.teachers.known import ALIASES, TIMM, check_teacher_name
from cache_builder.teachers.weight_places import named_classes, split_entry, weights_file


@dataclass(frozen=True)
class Expected:
    """A teacher that is not built yet, whose classes are known."""

    spec: str
    class_names: tuple[str, ...] | None


def check_build(settings: BuildSettings, *, is_first: bool = True) -> ImageSource:
    """Check names, files, folders and classes of a build; returns the data set, which is open then.

    ``is_first``: whether this process is the one that creates the cache. Raises the errors that the build
    itself would raise later.
    """
    if is_first:
        check_output(settings.out)
    check_name(settings.cache_name)
    if settings.codec is not None:
        check_codec_name(settings.codec)
    for name, weights in settings.members:
        check_teacher(name, weights)
    source = opened_source(settings)
    _check_classes(settings, source)
    return source


def check_teacher(name: str, weights: str) -> None:
    """Raise where a name is certainly no teacher's, or its weights are certainly not there."""
    check_teacher_name(name)
    if weights not in ("default", "random"):
        weights_file(split_entry(weights)[0])


def opened_source(settings: BuildSettings) -> ImageSource:
    """The data set that ``--data`` and ``--limit`` name."""
    source = open_source(settings.data, settings.decoding or NEWEST)
    return LimitedSource(source, settings.limit) if settings.limit else source


def check_cache(location: str | Path) -> None:
    """Raise :class:`FormatError` where a local path holds no cache; other places are looked at later."""
    if not is_remote(location) and not (local_path(location) / "zarr.json").exists():
        raise FormatError(
            f"{location}: there is no cache here (no zarr.json); build one with `kdcache build`"
        )


def check_reopening(data: str | None, teachers: tuple[str, ...], weights: tuple[str, ...]) -> None:
    """The same for a cache that is there already: what the command names instead of the manifest's."""
    for name in teachers:
        check_teacher_name(name)
    for one in weights:
        if one not in ("default", "random"):
            weights_file(split_entry(one)[0])
    if data is not None:
        check_there(data)


def _check_classes(settings: BuildSettings, source: ImageSource) -> None:
    """Match the classes of the data with the teacher's, where these are known without building it."""
    expected = expected_teacher(*settings.members[0])
    if expected.class_names:
        fit_labels(settings, source, expected, len(expected.class_names))


def expected_teacher(name: str, weights: str) -> Expected:
    """What the class names of a teacher will be; None where that is not sure."""
    if weights not in ("default", "random"):
        return Expected(name, named_classes(weights_file(split_entry(weights)[0])))
    if weights == "random" or (":" in name and not name.startswith(TIMM)):
        return Expected(name, None)
    if name.startswith(TIMM):
        # Weights with this tag have ImageNet's thousand classes: all of timm 1.0.31 that are so tagged.
        is_imagenet = name.endswith("_in1k") and folder_of("timm") is not None
        return Expected(name, imagenet_names.described_names() if is_imagenet else None)
    return Expected(f"torchvision:{ALIASES.get(name, name)}", imagenet_names.imagenet_names())
