"""How long a bad input takes to be told, and whether torch was imported for it; nothing is downloaded."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks.report import write_results

# The commands as they are typed; the second column is what is wrong with them.
_BUILD = "kdcache build --out c.zarr --data imagefolder:pictures --teacher"
_TRAIN = "kdtrain --out run --data imagefolder:pictures --student"
_INPUTS = (
    ("kdcache build --teacher resnet50 --out c.zarr --data imagefolder:nope", "no such folder"),
    ("kdcache build --teacher resnet50 --out pictures --data imagefolder:pictures", "--out is taken"),
    (f"{_BUILD} vit_k", "misspelt teacher"),
    (f"{_BUILD} timm:resnet5", "misspelt timm teacher"),
    (f"{_BUILD} resnet50 --weights nope.pth", "no such weights"),
    (f"{_BUILD} resnet50", "other classes than the teacher's"),
    (f"{_TRAIN} resnet19", "misspelt student"),
    (f"{_TRAIN} cnn3 --cache nope.zarr", "no such cache"),
    (f"{_TRAIN} cnn3 --val-data imagefolder:nope", "no such held-out data"),
    ("kdcache verify nope.zarr", "no such cache"),
)
_PROGRAM = """
import sys
import kdcache
sys.argv[1:] = {arguments!r}
try:
    kdcache.{entry}()
finally:
    print("torch" if "torch" in sys.modules else "no torch")
"""
_ENTRIES = {"kdcache": "main", "kdtrain": "kdtrain"}


def measure(command: str, folder: Path) -> tuple[float, float, bool]:
    """Seconds and processor seconds until a command ended, and whether it imported torch."""
    program, *arguments = command.split()
    code = _PROGRAM.format(entry=_ENTRIES[program], arguments=arguments)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    took = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, processor, ran.stdout.split()[-2:] != ["no", "torch"]


def main() -> None:
    """Print and keep a line for each bad input."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("wug", "blicket"):
            (folder / "pictures" / kind).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "pictures" / kind / "a.png")
        for command, wrong in _INPUTS:
            took, processor, imported = measure(command, folder)
            program = command.split()[0]
            rows.append(
                [f"{program}: {wrong}", round(took, 1), round(processor, 1), "yes" if imported else "no"]
            )
    columns = ["what is wrong", "seconds", "processor seconds", "torch imported"]
    write_results("first_hour", "How long a bad input takes to be told", columns, rows, __doc__ or "")


if __name__ == "__main__":
    main()
