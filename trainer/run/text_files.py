"""Small files of a run, whole on the disk or not there."""

from __future__ import annotations

from pathlib import Path

from cache_builder.format.durable import write_file


def write_text(path: Path, text: str) -> None:
    """Replace a small file in one rename, so that it is never half there."""
    write_file(path, text.encode(), path.with_name(f".{path.name}.partial"))
