"""Training runs killed by SIGKILL again and again, continued, and compared with one that was left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import write_results
from tests.trainer.kill_campaign import STEPS_A_KILL
from tests.trainer.runs import write_digits_cache

PROCESSES = (1, 2)
KILLS = 20

NOTES = f"""
Each line is one run (digits, a convolution with BatchNorm and dropout, AdamW, float32 on the CPU, an
evaluation and a checkpoint every fifth step) that was killed {KILLS} times and continued with `--resume`, and
one of the same settings that was left alone. Every second kill comes up to 30 ms after a random step, at
most {STEPS_A_KILL - 1} steps after the run began or went on; the others wait from such a step for a
checkpoint to be written and come up to 30 ms after its folder appears. Of two processes (gloo) a random one
is killed, and the other one must end by itself with a sentence and no traceback; "ended after" is the longest
that took, with all that else ran on the machine. Compared are all bytes of the weights of `last.safetensors`
and `best.safetensors`, what their headers say, and every row of `metrics.jsonl` but its times.
The processes are forked of one that imported torch; what they run is the command's own `train`.
"""

COLUMNS = [
    "processes", "steps", "kills at a step", "in the writing of a checkpoint", "just after it",
    "steps done again", "others that ended with a sentence", "ended after, s", "differs bit for bit",
]  # fmt: skip


def main() -> None:
    """Kill, compare, print and keep the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = write_digits_cache(Path(folder, "digits.zarr"))
        for processes in PROCESSES:
            found = campaign(Path(folder, str(processes)), cache, processes, KILLS)
            found["differing"] = found["differing"] or "nothing"
            rows.append(list(found.values()))
    write_results("train_kills", "Training runs killed and continued", COLUMNS, rows, NOTES)


def campaign(folder: Path, cache: Path, processes: int, kills: int) -> dict[str, object]:
    """The outcome of one campaign, in a process that never used torch."""
    folder.mkdir()
    words = [sys.executable, "-m", "tests.trainer.kill_campaign", folder, cache, processes, kills]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, object] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
