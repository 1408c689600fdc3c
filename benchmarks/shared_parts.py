"""What it saves that the part which views share is read, kept and sent once: memory, wire and loading.

    python -m benchmarks shared_parts

A cache of codec ``joint-sketch`` is written for logits as ``benchmarks.calibration`` makes them, and all of
its views are brought into memory both ways in turn: each record whole, and its parts by themselves.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.calibration import VIEWS, logits_of
from benchmarks.report import alternate, write_results
from cache_builder.calibration import calibrate
from cache_builder.calibration.contract import Scope
from cache_builder.format import Cache, open_cache
from cache_builder.format.codecs import Part
from cache_builder.format.codecs.joint_sketch import JointSketch
from cache_builder.format.manifest import CodecRequest
from tests.format.joint import write_joint_cache

SAMPLES, CLASSES, ROUNDS = 2048, 1000, 3
LOST = (0.2, 0.05, 0.02)

NOTES = f"""
{SAMPLES:,} samples, {VIEWS} views, {CLASSES:,} classes. Bytes a view: on disk; of a page or an answer with
every record whole; and with the shared part once for the {VIEWS} views. Time: processor, to decode all views
of the store, the median of {ROUNDS} rounds in turn.
"""


def main() -> None:
    """Measure, print and keep the table."""
    logits = logits_of(SAMPLES * VIEWS, CLASSES)
    rows = [_measured(logits, lose) for lose in LOST]
    columns = ["lost", "disk", "whole", "in parts", "whole / in parts", "us a record", "in parts", "ratio"]
    write_results("shared_parts", "The part that views share, once", columns, rows, NOTES)


def _measured(logits: np.ndarray, lose: float) -> list[object]:
    scope = Scope(VIEWS, SAMPLES * VIEWS)
    codec = calibrate.fit(logits, CodecRequest(lose=lose), "joint-sketch", scope).codec
    assert isinstance(codec, JointSketch)
    by_view = np.ascontiguousarray(logits.reshape(SAMPLES, VIEWS, CLASSES).swapaxes(0, 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "joint.zarr")
        write_joint_cache(path, by_view, codec=codec, tile_views=VIEWS, tile_rows=SAMPLES)
        cache = open_cache(path)
        seconds = alternate({"whole": lambda: _whole(cache), "parts": lambda: _parts(cache)}, ROUNDS)
        stored = sum(file.stat().st_size for file in (path / "records").rglob("*") if file.is_file())
    shared, whole = cache.layout.shared_bytes, cache.record_bytes
    in_parts = whole - shared + shared / VIEWS
    took, took_in_parts = (median(seconds[name]) / SAMPLES / VIEWS * 1e6 for name in ("whole", "parts"))
    disk = stored / SAMPLES / VIEWS
    return [lose, disk, whole, in_parts, whole / in_parts, took, took_in_parts, took / took_in_parts]


def _whole(cache: Cache) -> float:
    began = time.process_time()
    for view in range(VIEWS):
        cache.read_positions(view, range(SAMPLES))
    return time.process_time() - began


def _parts(cache: Cache) -> float:
    began = time.process_time()
    cache.read_positions(0, range(SAMPLES), part=Part.SHARED)
    for view in range(VIEWS):
        cache.read_positions(view, range(SAMPLES), part=Part.OWN)
    return time.process_time() - began


if __name__ == "__main__":
    main()
