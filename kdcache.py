"""The face of kdcache: what a training program imports, and the command line as ``python -m kdcache``.

Each name is imported when it is first used, so that ``import kdcache`` takes milliseconds and loads no torch:

- :class:`TeacherCache`: ``TeacherCache.open(url)``, then ``.fetch(view, rows)``
- :class:`ReplayDataset`: the samples in the views that the teacher saw
- :class:`RecordDecoder`: packed records to dense logits, on the device
- :class:`Normalise`: uint8 pictures to what the student takes, on the device
- ``LOSSES``, :class:`Loss`, :class:`StatefulLoss`: the losses by name, and what they are
- :func:`make_loss`: a loss from its name and fields
- :func:`build`, :class:`BuildSettings`: the batch job that writes a cache
- :class:`LogitsWriter`: a cache of logits that you have already, also of several positions a sample
- :func:`open_cache`: a cache on a disk or an object store, without a server
- :class:`Client`: a server's caches, records, samples and views, without torch (also ``kdcache.client``)

The packages behind these names are found beside this file, even where the working directory has a module of
the same name, such as a user's ``trainer.py``. Where another module of that name was imported before,
:class:`ImportError` gives its path.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer
    from typer.core import TyperGroup

    from cache_builder.build.pipeline import build
    from cache_builder.build.settings import BuildSettings
    from cache_builder.client import Client
    from cache_builder.format.logits_writer import LogitsWriter
    from cache_builder.format.reader import open_cache
    from cache_builder.tensors.decode import RecordDecoder
    from cache_builder.tensors.normalise import Normalise
    from trainer.losses import LOSSES, Loss, StatefulLoss, make_loss
    from trainer.replay.view_dataset import ReplayDataset
    from trainer.teacher.client import TeacherCache

    __version__: str

__all__ = [
    "LOSSES",
    "BuildSettings",
    "Client",
    "LogitsWriter",
    "Loss",
    "Normalise",
    "RecordDecoder",
    "ReplayDataset",
    "StatefulLoss",
    "TeacherCache",
    "__version__",
    "build",
    "make_loss",
    "open_cache",
]

_HOMES = {
    "BuildSettings": "cache_builder.build.settings",
    "Client": "cache_builder.client",
    "LOSSES": "trainer.losses",
    "LogitsWriter": "cache_builder.format.logits_writer",
    "Loss": "trainer.losses",
    "Normalise": "cache_builder.tensors.normalise",
    "RecordDecoder": "cache_builder.tensors.decode",
    "ReplayDataset": "trainer.replay.view_dataset",
    "StatefulLoss": "trainer.losses",
    "TeacherCache": "trainer.teacher.client",
    "build": "cache_builder.build.pipeline",
    "make_loss": "trainer.losses",
    "open_cache": "cache_builder.format.reader",
}
_FOLDER = Path(__file__).resolve().parent
_PACKAGES = ("cache_builder", "logit_server", "trainer")
_FIRST_COMMANDS = ("build", "serve", "train")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("kdcache")
    if name == "client":
        return sys.modules[f"{__name__}.client"]
    if name not in _HOMES:
        raise AttributeError(f"module 'kdcache' has no attribute {name!r}")
    home = _HOMES[name]
    _import_packages("cache_builder", home.partition(".")[0])
    try:
        return getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        raise _with_remedy(name, error) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _with_remedy(name: str, error: ModuleNotFoundError) -> ImportError:
    """The error of a name that cannot be imported, with what to install."""
    missing = (error.name or "").partition(".")[0]
    if missing in _PACKAGES:
        return ImportError(
            f"kdcache.{name}: {_FOLDER / missing} lacks {error.name}, perhaps because another distribution's "
            f"package {missing!r} was installed over it: reinstall kdcache in an environment of its own",
            name=error.name,
        )
    extra = {"build": "build", "Client": "client"}.get(name, "train")
    return ImportError(
        f"kdcache.{name} needs {missing}: pip install 'kdcache[{extra}]'", name=error.name, path=error.path
    )


class _ClientModule(ModuleType):
    """``kdcache.client``: the names of ``cache_builder.client``, imported when one is first used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _import_packages("cache_builder")
        try:
            return getattr(import_module("cache_builder.client"), name)
        except ModuleNotFoundError as error:
            raise _with_remedy("Client", error) from error


# ``kdcache`` is one file, so Python would find no module below it.
sys.modules[f"{__name__}.client"] = _ClientModule(f"{__name__}.client", "See ``cache_builder.client``.")


def _import_packages(*packages: str) -> None:
    """Import packages of ours, whatever else ``sys.path`` has under their names; none loads its modules yet.

    Raises :class:`ImportError` where another module of such a name was imported before.
    """
    for package in packages:
        found, ours = sys.modules.get(package) or _imported(package), _FOLDER / package
        file = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", ["?"])))
        if ours.is_dir() and not Path(file).resolve().is_relative_to(ours):
            raise ImportError(
                f"{file} has the name of kdcache's package {package!r} and was imported before it: rename it",
                name=package,
                path=file,
            )


def _imported(package: str) -> ModuleType:
    """The package of that name beside this file, imported."""
    spec = PathFinder.find_spec(package, [str(_FOLDER)])
    if spec is None or spec.loader is None:
        return import_module(package)  # an installation that keeps packages and modules apart
    module = module_from_spec(spec)
    sys.modules[package] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[package]
        raise
    return module


def commands() -> TyperGroup:
    """``kdcache`` with all its commands; ``train`` is ``kdtrain``, imported when it is called."""
    _import_packages(*_PACKAGES)
    from typer.main import get_group

    from cache_builder.cli.app import app
    from cache_builder.console.lazy import LazyProgram

    group = get_group(app)
    train = LazyProgram("train", _training, "Train a student from a cache; the same program as `kdtrain`.")
    by_name = {**group.commands, "train": train}
    first = {name: by_name[name] for name in _FIRST_COMMANDS if name in by_name}
    group.commands = {**first, **by_name}
    return group


def _training() -> typer.Typer:
    from trainer.cli.app import app, prepare

    prepare()
    return app


def main() -> None:
    """Entry point of ``kdcache`` and of ``python -m kdcache``."""
    commands()(prog_name="kdcache")


def kdtrain() -> None:
    """Entry point of ``kdtrain``."""
    _import_packages(*_PACKAGES)
    from trainer.cli.app import main

    main()


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    # A process that a command spawned (multiprocessing imports the program again): it must find our packages
    # too before it looks for the function to run.
    _import_packages(*_PACKAGES)
