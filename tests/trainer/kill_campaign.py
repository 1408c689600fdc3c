"""Kill a training run again and again, let it finish, and compare it with one that was left alone.

-m tests.trainer.kill_campaign FOLDER CACHE PROCESSES KILLS prints :class:`Outcome` as JSON.

Every second kill waits for a checkpoint to be written and comes at a random instant of the writing; the
others come at a random step. Of several processes one is killed: the others must end by themselves, with a
sentence.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.trainer.ranks import Ranks, StepBoard
from tests.trainer.runs import STEPS_PER_EPOCH, config
from tests.trainer.same_runs import differing
from trainer.run.peers import PeerLostError
from trainer.run.settings import TrainSettings

STEPS_A_KILL = 2 * STEPS_PER_EPOCH
"""Steps after its start within which a run is killed; on average one half of them is done again."""
_WRITING_S = 0.03
"""About what a checkpoint of the small student takes."""
_PATIENCE_S = 240.0
_POLL_S = 0.0005


@dataclass
class Outcome:
    """What happened, and whether the runs ended alike."""

    processes: int
    steps: int = 0
    """Optimiser steps of the whole run."""
    at_steps: int = 0
    """Kills at a random step."""
    in_writing: int = 0
    """Kills that left half a checkpoint."""
    after_writing: int = 0
    """Kills that were meant for the writing and came when it was done."""
    repeated_steps: int = 0
    """Steps that were done and not yet in a checkpoint."""
    sentences: int = 0
    """Processes that ended because another one was killed, each with a sentence and no traceback."""
    slowest_end_s: float = 0.0
    """The longest that one of them took to end."""
    differing: list[str] = field(default_factory=list)
    """What the two runs do not share bit for bit."""


class Campaign:
    """One run that is killed, and one that is not."""

    def __init__(self, folder: Path, cache: str, processes: int, kills: int, seed: int = 0) -> None:
        self._folder, self._cache, self._kills = folder, cache, kills
        self._random = random.Random(seed)
        self.outcome = Outcome(processes)

    def run(self) -> Outcome:
        """Everything; raises where a run ends in another way than it should."""
        self._finish("alone")
        for number in range(self._kills):
            self._kill(in_writing=number % 2 == 1)
        self._finish("killed")
        self.outcome.differing = differing(self._folder / "alone", self._folder / "killed")
        return self.outcome

    def _settings(self, name: str) -> TrainSettings:
        # A kill may come after each of the steps of its share, so they are enough for all.
        epochs = (self._kills + 1) * STEPS_A_KILL // STEPS_PER_EPOCH
        self.outcome.steps = epochs * STEPS_PER_EPOCH
        return config(self._folder / name, self._cache, val_data="digits:test", epochs=epochs)

    def _start(self, name: str, board: StepBoard) -> Ranks:
        settings = [self._settings(name)] * self.outcome.processes
        return Ranks.start(settings, self._folder / f"{name}.log", board)

    def _finish(self, name: str) -> None:
        codes = self._start(name, StepBoard()).ended()
        if any(codes):
            raise RuntimeError(f"{name} ended with {codes}")

    def _kill(self, in_writing: bool) -> None:
        """Start or resume the run, and kill one of its processes."""
        board, saved = StepBoard(), self._saved_step()
        ranks = self._start("killed", board)
        target = saved + self._random.randint(1, STEPS_A_KILL - 1)
        _wait(lambda: board.step >= target, ranks)
        if in_writing:
            _wait(self._has_partial, ranks)
        time.sleep(self._random.uniform(0, _WRITING_S))
        os.kill(self._random.choice(ranks.pids), signal.SIGKILL)
        self._note(ranks, time.monotonic())
        self.outcome.repeated_steps += max(0, board.step - self._saved_step())
        if not in_writing:
            self.outcome.at_steps += 1
        elif self._has_partial():
            self.outcome.in_writing += 1
        else:
            self.outcome.after_writing += 1

    def _note(self, ranks: Ranks, killed: float) -> None:
        """That every other process ended by itself, and what it said."""
        codes = ranks.ended()
        if codes.count(-signal.SIGKILL) != 1:
            raise RuntimeError(f"one process was killed, they ended with {codes}")
        if len(codes) > 1:
            self.outcome.slowest_end_s = max(self.outcome.slowest_end_s, time.monotonic() - killed)
        for code, log in zip(codes, ranks.logs, strict=True):
            if code == -signal.SIGKILL:
                continue
            last = log.read_text().rstrip().rpartition("\n")[2]
            if code != PeerLostError.exit_code or not last.startswith("error: another process of this run"):
                raise RuntimeError(f"a process ended with {code}, saying: {log.read_text()}")
            self.outcome.sentences += 1

    def _saved_step(self) -> int:
        folders = (self._folder / "killed/checkpoints").glob("step-*")
        return max((int(path.name.split("-")[1]) for path in folders), default=0)

    def _has_partial(self) -> bool:
        return any((self._folder / "killed/checkpoints").glob(".step-*.partial"))


def _wait(until: Callable[[], bool], ranks: Ranks) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not until():
        if time.monotonic() > deadline:
            said = "\n".join(log.read_text() for log in ranks.logs)
            raise RuntimeError(f"the run did not come to where it was to be killed: {said}")
        time.sleep(_POLL_S)


if __name__ == "__main__":
    campaign = Campaign(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(json.dumps(asdict(campaign.run())))
