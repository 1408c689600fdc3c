"""A real ImageNet teacher on one's own folders, command by command, as the README's tour has it.

Three sets of folders: some of the teacher's classes by name, other classes altogether, and the first set with
one folder renamed. Every command is the one a user types; the table keeps its exit code, its time and what it
said.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.real_pictures import STAMPS, write_own, write_subset
from benchmarks.report import write_results

_TEACHER = "benchmarks.real_pictures:lite0"
_STUDENT = "--student cnn3 --image-size 64 --epochs 30 --batch-size 32 --workers 0 --no-tensorboard"
_NOTES = """
Pictures: Debian's tuxpaint-stamps-default on grounds of several greys (`benchmarks/real_pictures.py`);
teacher: EfficientNet-Lite0 with its published ImageNet-1k weights. The students are small and trained from
nothing on a few hundred pictures of 64 px: their accuracy shows that the commands work together, not what
distillation can reach.
"""


@dataclass(frozen=True)
class Step:
    """One command of the tour."""

    what: str
    command: str
    """Without the program's folder; words are split at spaces."""
    fails: bool = False
    """Whether it has to be refused."""


TOUR = (
    Step("build: some of the teacher's classes", f"kdcache build --teacher {_TEACHER} --data imagefolder:subset/train --views 4 --out subset.zarr"),  # noqa: E501
    Step("inspect", "kdcache inspect subset.zarr"),
    Step("verify", f"kdcache verify subset.zarr --data imagefolder:subset/train --teacher {_TEACHER}"),
    Step("train: the teacher's 1,000 classes", f"kdtrain --cache subset.zarr --data imagefolder:subset/train --val-data imagefolder:subset/val --classes teacher --loss kd {_STUDENT} --out runs/teacher"),  # noqa: E501
    Step("train: the folders' classes alone", f"kdtrain --cache subset.zarr --data imagefolder:subset/train --val-data imagefolder:subset/val --classes data --loss kd {_STUDENT} --out runs/data"),  # noqa: E501
    Step("train: hard labels alone", f"kdtrain --data imagefolder:subset/train --recipe rrc-flip --val-data imagefolder:subset/val --loss ce {_STUDENT} --out runs/hard"),  # noqa: E501
    Step("evaluate the second", "kdtrain eval runs/data --data imagefolder:subset/val"),
    Step("build: own classes, labels kept apart", f"kdcache build --teacher {_TEACHER} --data imagefolder:own/train --views 4 --ignore-labels --out own.zarr"),  # noqa: E501
    Step("inspect", "kdcache inspect own.zarr"),
    Step("train: two heads", f"kdtrain --cache own.zarr --data imagefolder:own/train --val-data imagefolder:own/val --loss kd {_STUDENT} --out runs/own"),  # noqa: E501
    Step("train: hard labels alone", f"kdtrain --data imagefolder:own/train --recipe rrc-flip --val-data imagefolder:own/val --loss ce {_STUDENT} --out runs/own-hard"),  # noqa: E501
    Step("evaluate the two heads", "kdtrain eval runs/own --data imagefolder:own/val"),
    Step("own classes without --ignore-labels", f"kdcache build --teacher {_TEACHER} --data imagefolder:own/train --views 4 --out other.zarr", fails=True),  # noqa: E501
    Step("one folder renamed", f"kdcache build --teacher {_TEACHER} --data imagefolder:renamed --views 4 --out renamed.zarr", fails=True),  # noqa: E501
    Step("held-out data of other classes", "kdtrain eval runs/data --data imagefolder:own/val", fails=True),
)  # fmt: skip


def main() -> None:
    """Run the tour in a folder of its own."""
    if not STAMPS.is_dir():
        print(f"{STAMPS} is not there: apt-get install tuxpaint-stamps-default", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_subset(root / "subset")
        write_own(root / "own")
        _rename_one(root)
        rows = [_run(step, root) for step in TOUR]
    columns = ["what", "exit", "seconds", "last words"]
    write_results("real_teacher", "A real ImageNet teacher on folders of one's own", columns, rows, _NOTES)


def _rename_one(root: Path) -> None:
    write_subset(root / "copy", per_class=2, held_out=1)
    (root / "copy/train").rename(root / "renamed")
    (root / "renamed/zebra").rename(root / "renamed/stripy horse")


def _run(step: Step, root: Path) -> list[object]:
    began = time.monotonic()
    words = step.command.split()
    program = Path(sys.executable).with_name(words[0])
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        [str(program), *words[1:]], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    said = _worth_keeping(done.stdout + done.stderr)
    print(f"$ {step.command}\n" + "\n".join(said) + f"\nexit {done.returncode}\n", flush=True)
    if (done.returncode != 0) != step.fails:
        raise SystemExit(f"{step.what}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return [step.what, done.returncode, round(time.monotonic() - began, 1), " / ".join(said[-3:])[:300]]


def _worth_keeping(output: str) -> Sequence[str]:
    """The lines that are not progress."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in output.splitlines()]
    return [line for line in lines if line and "━" not in line]


if __name__ == "__main__":
    main()
