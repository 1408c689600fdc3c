"""How long opening tar shards takes, and what reading a sample out of one costs beside its decoding."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from benchmarks.report import alternate, write_results
from cache_builder.datasets import ImageSource, open_source
from cache_builder.datasets.shards import samples_of

SHARDS, PER_SHARD = 5, 5_000
READ = 300
ROUNDS = 5

NOTES = f"""
{SHARDS} shards of {PER_SHARD:,} samples, an image of 60 kB and a `.cls` each, from the operating system's
cache; processor time, the best of {ROUNDS} rounds. Opening reads every header and every `.cls`, never an
image; seconds for 1,000,000 members are scaled from that: ImageNet as image and label is 2.56 million
members. The floor reads the 512 bytes of each header and nothing else, at places that are known. Reading
is of {READ} random samples, with and without decoding (500 x 375 pixels). Other work shared the two
cores.
"""


def main() -> None:
    """Measure, print and keep the table."""
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder))
        spec = f"webdataset:{folder}/{{0..{SHARDS - 1}}}.tar"
        source = open_source(spec)
        rows = np.random.default_rng(0).integers(0, len(source), READ).tolist()
        members = 2 * len(source)
        measured = alternate(
            {
                "headers, places known (floor)": lambda: timed_headers(Path(folder)),
                "opened without labels": lambda: timed_open(f"{spec}?label="),
                "opened": lambda: timed_open(spec),
                "read": lambda: timed_read(source, rows, decode=False),
                "read and decoded": lambda: timed_read(source, rows, decode=True),
            },
            ROUNDS,
        )
    table = []
    for name, seconds in measured.items():
        best = min(seconds)
        reads = name.startswith("read")
        table.append([name, best, "" if reads else best * 1e6 / members, best / READ * 1e6 if reads else ""])
    columns = ["step", "seconds", "seconds for 1,000,000 members", "microseconds a sample"]
    write_results("shards", "Tar shards: opening, and reading by row", columns, table, NOTES)


def write_shards(folder: Path) -> None:
    """Photographs of one size, so that the shards are a realistic distance from header to header."""
    buffer = io.BytesIO()
    photo = Image.fromarray(data.astronaut()).resize((500, 375))
    photo.save(buffer, "JPEG", quality=95)
    content = buffer.getvalue().ljust(60_000, b"\0")
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for row in range(PER_SHARD):
                for name, payload in (
                    (f"{row:06d}.jpg", content),
                    (f"{row:06d}.cls", str(row % 1000).encode()),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(payload)
                    tar.addfile(info, io.BytesIO(payload))


def timed_open(spec: str) -> float:
    """Seconds that the data set takes to open."""
    begun = time.process_time()
    open_source(spec)
    return time.process_time() - begun


def timed_headers(folder: Path) -> float:
    """Seconds to fetch every header at its known place."""
    places = [
        (shard, member.offset - 512)
        for shard in sorted(folder.glob("*.tar"))
        for _, members, _ in samples_of(shard)
        for member in members
    ]
    opened = {shard: os.open(shard, os.O_RDONLY) for shard in {shard for shard, _ in places}}
    begun = time.process_time()
    for shard, offset in places:
        os.pread(opened[shard], 512, offset)
    seconds = time.process_time() - begun
    for descriptor in opened.values():
        os.close(descriptor)
    return seconds


def timed_read(source: ImageSource, rows: list[int], decode: bool) -> float:
    """Seconds to read samples by row."""
    fetch = source.read if decode else source.fetch  # type: ignore[attr-defined]
    begun = time.process_time()
    for row in rows:
        fetch(row)
    return time.process_time() - begun


if __name__ == "__main__":
    main()
