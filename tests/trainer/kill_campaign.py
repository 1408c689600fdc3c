"""Kill a training run again and again, then let it finish: -m tests.trainer.kill_campaign OUT CACHE KILLS

A process of its own that forks one child per attempt: torch is imported once, and never used before a fork.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.trainer.runs import config
from trainer.run.loop import train


def attempt(out: Path, cache: str, alive_s: float | None) -> int:
    """Run (or go on) in a child, killed after ``alive_s`` seconds; the wait status."""
    child = os.fork()
    if child == 0:
        train(config(out, cache, val_data="digits:test", epochs=150), resume=True)
        os._exit(0)
    if alive_s is not None:
        time.sleep(alive_s)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def main(out: Path, cache: str, kills: int) -> None:
    delays = random.Random(0)
    interrupted = 0
    for _ in range(kills):
        status = attempt(out, cache, delays.uniform(0.3, 2.0))
        interrupted += os.WIFSIGNALED(status)
    assert attempt(out, cache, None) == 0
    sys.stdout.write(f"{interrupted}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
