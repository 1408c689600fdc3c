"""Training by several processes, all forked of this one: it imports torch once, and never uses it.

-m tests.trainer.ranks SPEC.json: the runs of a list, one after the other; see :func:`main`.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Imported once, before the forks, as all that a run imports late.
import matplotlib.pyplot  # noqa: F401
import sklearn.datasets  # noqa: F401
import typer

from tests.trainer.runs import config
from tests.trainer.servers import free_port
from trainer.cli.ending import reported
from trainer.run.loop import train
from trainer.run.progress import Silent
from trainer.run.settings import TrainSettings

_STEP_BYTES = 8


class StepBoard(Silent):
    """Shows the other processes how many steps are done; may ask its own to stop after some."""

    def __init__(self, stop_after: int | None = None) -> None:
        self._shared = mmap.mmap(-1, _STEP_BYTES)
        self._stop_after = stop_after

    @property
    def step(self) -> int:
        """Steps done, as any process of the run's family reads it."""
        return int.from_bytes(self._shared[:], "little")

    def stepped(self, step: int) -> None:
        """Show it; send the signal that a scheduler would."""
        self._shared[:] = step.to_bytes(_STEP_BYTES, "little")
        if step == self._stop_after:
            os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class Ranks:
    """Processes that train together, from when they are made."""

    pids: list[int]
    logs: list[Path]
    """What each of them says, appended."""

    @classmethod
    def start(cls, settings: Sequence[TrainSettings], log: Path, board: StepBoard) -> Ranks:
        """Begin a run, or go on with the one in ``--out``; the settings of each process."""
        port, processes = free_port(), len(settings)
        launch = [
            {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }
            for rank in range(processes)
        ]  # fmt: skip
        logs = [log.with_name(f"{log.name}.{rank}") for rank in range(processes)]
        each = zip(settings, launch if processes > 1 else [{}], logs, strict=True)
        return cls([_forked(*one, board) for one in each], logs)

    def ended(self) -> list[int]:
        """Their exit codes, once all have ended; -9 of a killed one."""
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids]


def _forked(settings: TrainSettings, variables: dict[str, str], log: Path, board: StepBoard) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ |= variables
        code = _trained(settings, board)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _trained(settings: TrainSettings, board: StepBoard) -> int:
    """The exit code that the command has."""
    try:
        with reported():
            train(settings, resume=settings.out.exists(), display=board)
    except typer.Exit as end:
        return end.exit_code
    return 0


def main(spec: Path) -> None:
    """Run ``{"outs" (of each process), "cache", "stop_after", "settings"}`` in turn; print their codes."""
    runs: list[dict[str, Any]] = json.loads(spec.read_text())
    log = spec.with_name(f"{spec.name}.log")
    codes = []
    for run in runs:
        settings = [config(Path(out), run["cache"], **run["settings"]) for out in run["outs"]]
        ranks = Ranks.start(settings, log, StepBoard(run.get("stop_after")))
        codes.append(ranks.ended())
    sys.stdout.write(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
