"""Installed size of the server's image beside its base, by running what the Dockerfile says in a folder."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.report import write_results
from tests.docker.images import Image

SHOWN = 8
NOTES = """
What the target `server` of docker/Dockerfile adds to its base (python:3.11-slim): the virtual environment in
/opt/kdcache, from the wheel and the packages of the registry at the tested versions.
"""


def main() -> None:
    """Install, measure, print and keep the table."""
    with tempfile.TemporaryDirectory() as folder:
        image = Image(Path(folder))
        image.build("server")
        sizes = installed(Path(image.here("/opt/kdcache")))
    total = sum(sizes.values())
    rows: list[list[object]] = [["everything", total / 1e6]]
    rows += [[name, size / 1e6] for name, size in sizes.most_common(SHOWN)]
    rest = total - sum(size for _, size in sizes.most_common(SHOWN))
    write_results(
        "image_size", "The server's image", ["package", "MB"], [*rows, ["others", rest / 1e6]], NOTES
    )


def installed(folder: Path) -> Counter[str]:
    """Bytes of the packages of a virtual environment; what is no package counts as "environment"."""
    sizes: Counter[str] = Counter()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            parts = path.relative_to(packages).parts if path.is_relative_to(packages) else ()
            sizes[parts[0].partition(".")[0] if parts else "environment"] += path.stat().st_size
    return sizes


if __name__ == "__main__":
    main()
