"""What torchvision and timm know, read from their source files: importing them brings torch."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

# A model of either library is a function with this line above it, and perhaps others between.
_REGISTERED = re.compile(r"^@register_model\b[^\n]*\n(?:@[^\n]*\n)*def (\w+)", re.MULTILINE)


def folder_of(package: str) -> Path | None:
    """Where a top-level package is installed, without importing it; None where it is not."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None


@lru_cache(maxsize=2)
def model_names(library: str) -> frozenset[str]:
    """The classifiers of ``torchvision`` or ``timm``; empty where the library is not installed.

    Both keep them in the modules of their folder ``models``; torchvision's other models lie in folders below.
    """
    folder = folder_of(library)
    if folder is None:
        return frozenset()
    sources = (file.read_text(errors="replace") for file in (folder / "models").glob("*.py"))
    return frozenset(name for source in sources for name in _REGISTERED.findall(source))


@lru_cache(maxsize=1)
def torchvision_sets() -> frozenset[str]:
    """Names of torchvision's data sets; empty where its list of them cannot be read."""
    folder = folder_of("torchvision")
    file = None if folder is None else folder / "datasets" / "__init__.py"
    if file is None or not file.is_file():
        return frozenset()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def light_module(package: str, inner: str) -> ModuleType:
    """``package.inner``, a module that needs nothing of its package, without running the package.

    Where the package was imported already, its own module. Raises :class:`ModuleNotFoundError` where it is
    not installed.
    """
    if package in sys.modules:
        return importlib.import_module(f"{package}.{inner}")
    folder = folder_of(package)
    if folder is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    *parents, name = inner.split(".")
    alone = f"_kdcache_{package}_{'_'.join(parents)}"
    if alone not in sys.modules:
        # Its folder as a package of another name, so that its modules find each other and nothing else runs.
        holder = ModuleType(alone)
        holder.__path__ = [str(folder.joinpath(*parents))]
        sys.modules[alone] = holder
    return importlib.import_module(f"{alone}.{name}")
