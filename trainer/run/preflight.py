"""What is wrong with a training is told before torch is imported, as in ``cache_builder.build.preflight``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cache_builder.console.libraries import model_names
from cache_builder.console.names import SMALL_STUDENTS, unknown_name
from cache_builder.datasets import check_there
from cache_builder.format.errors import ConfigError, FormatError
from cache_builder.format.locations import is_remote, local_path
from trainer.objective.expression import parse_call
from trainer.teacher.client import TeacherCache


def check_training(given: Mapping[str, Any]) -> None:
    """Look at the student's name, the caches and the data sets of the flags given.

    Raises the errors that the training itself would raise later, or what says the same.
    """
    check_student_name(str(given["student"]))
    for cache in given["cache"] or ():
        check_cache(cache, float(given.get("patience_s", 120.0)))
    for flag in ("data", "val_data"):
        if given.get(flag) is not None:
            check_there(given[flag])


def check_student_name(spec: str) -> None:
    """Raise :class:`ConfigError` for a name that is certainly no student's."""
    name = spec.partition("(")[0].strip()
    if ":" in name:
        return
    name, known = parse_call(spec).name, model_names("torchvision")
    if known and name not in SMALL_STUDENTS and name not in known:
        raise ConfigError(unknown_student(name, known))


def unknown_student(name: str, known: Iterable[str]) -> str:
    """What to say of a student that nobody knows."""
    told = unknown_name("student", name, [*SMALL_STUDENTS, *known])
    if name in model_names("timm"):
        return f"{told}; timm has it: write a function that makes it, and --student package.module:function"
    return f"{told} (or package.module:factory)"


def check_cache(location: str, patience_s: float) -> None:
    """Raise where there is no cache, or no server answers for ``patience_s`` seconds."""
    if location.startswith(("http://", "https://")):
        TeacherCache.open(location, patience_s=patience_s).close()
    elif "/v1/caches/" in location and not is_remote(location):
        raise ConfigError(f"cache {location}: write http://{location} for the address of a server")
    elif not is_remote(location) and not (local_path(location) / "zarr.json").exists():
        raise FormatError(
            f"{location}: there is no cache here (no zarr.json); build one with `kdcache build`"
        )


def check_run(run: Path, data: str | None) -> None:
    """Raise where an evaluation has no run or no data to look at."""
    if not (run / "config.json").exists():
        raise ConfigError(f"{run} holds no run (no config.json)")
    if data is not None:
        check_there(data)
