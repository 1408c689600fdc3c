"""``python -m benchmarks [NAME ...]``: run the named benchmarks, or every one, one after another."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable

import benchmarks


def found() -> dict[str, Callable[[], None]]:
    """Every module of this folder that has a ``main()``, by name."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__"]
    names.sort(key=lambda name: name == "summary")  # it reads what the others wrote
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {name: module.main for name, module in modules.items() if hasattr(module, "main")}


def run(names: list[str]) -> int:
    """Run the benchmarks of these names (all when empty); returns the exit code."""
    mains = found()
    unknown = [name for name in names if name not in mains]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; known: {', '.join(mains)}", file=sys.stderr)
        return 2
    for name in names or mains:
        print(f"## {name}\n", flush=True)
        mains[name]()
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
