"""The state of a run between steps: where it is, what was best, and how it is saved and restored."""

from __future__ import annotations

import time
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from trainer.run.assemble import Run
from trainer.run.checkpoint import (
    Checkpoint,
    load_weights,
    random_state,
    restore_random_state,
    seed_generators,
)
from trainer.run.division import check_division, division_of
from trainer.run.metrics import Evaluation, TrainMeter
from trainer.run.peers import chosen_checkpoint
from trainer.run.run_folder import BEST, LAST, RunFolder


class Keeper:
    """Keeps ``step`` and the best epoch; saves and restores everything that the next step depends on."""

    def __init__(self, run: Run, folder: RunFolder, meter: TrainMeter) -> None:
        self._run = run
        self._folder = folder
        self._meter = meter
        self._began = self._last_save = time.monotonic()
        self._seconds_before = 0.0
        self._random: list[dict[str, Any]] | None = None
        self.step = 0
        """Optimiser steps done."""
        self.best_top1: float | None = None
        self.best_epoch: int | None = None
        """Counted from 1; without held-out data the last one."""

    @property
    def seconds(self) -> float:
        """Time spent on the run, in all its processes one after another."""
        return self._seconds_before + time.monotonic() - self._began

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough for another one inside an epoch."""
        return time.monotonic() - self._last_save > 60 * self._run.config.settings.checkpoint_minutes

    def finish_epoch(self, epoch: int, evaluation: Evaluation | None) -> None:
        """Note an epoch's result, before its checkpoint."""
        if evaluation is None:
            self.best_epoch = epoch
        elif self.best_top1 is None or evaluation.top1 > self.best_top1:
            self.best_top1, self.best_epoch = evaluation.top1, epoch

    def check_values(self) -> None:
        """Raise where any process met numbers that no loss can work with; called by every process."""
        run = self._run

        def anywhere(found: Tensor) -> Tensor:
            return (
                found if run.accelerator.num_processes == 1 else run.accelerator.reduce(found.float(), "sum")
            )

        run.objective.checks.ask(self.step, anywhere)

    def save(self) -> None:
        """Write a checkpoint of this moment; called by every process, written by the main one.

        Weights that came of wrong numbers are never written: the error is raised instead.
        """
        self.check_values()
        run = self._run
        # Both speak with the other processes, so all take part.
        totals = self._meter.totals(run.accelerator)
        randoms = gather_object([random_state()])
        if run.accelerator.is_main_process:
            card = run.card() | {
                "step": self.step,
                "best_top1": self.best_top1,
                "best_epoch": self.best_epoch,
            }
            checkpoint = self._folder.checkpoints.write(
                self.step,
                run.student,
                card,
                self._state(totals, randoms),
                run.config.model_dump_json(indent=1),
            )
            self._publish(checkpoint)
            self._folder.publish()
        run.accelerator.wait_for_everyone()
        self._last_save = time.monotonic()

    def restore(self) -> None:
        """Take up the newest whole checkpoint, where there is one."""
        run = self._run
        checkpoint = chosen_checkpoint(run.accelerator, self._folder.checkpoints)
        if run.accelerator.is_main_process:
            self._folder.checkpoints.set_damaged_aside()
        if checkpoint is None:
            return
        state = checkpoint.load_state()
        check_division(run, division_of(checkpoint, state))
        load_weights(checkpoint.weights, run.student)
        run.optimizer.load_state_dict(state["optimizer"])
        run.objective.load_state_dict(state["objective"])
        if run.accelerator.scaler is not None and state["scaler"] is not None:
            run.accelerator.scaler.load_state_dict(state["scaler"])
        self._meter.restore(state["meter"], run.accelerator.is_main_process)
        run.objective.checks.begin(state["step"])
        self._random = state["random"]
        self.step, self._seconds_before = state["step"], state["seconds"]
        self.best_top1, self.best_epoch = state["best_top1"], state["best_epoch"]
        if run.accelerator.is_main_process:
            self._publish(checkpoint)  # a kill may have come between the checkpoint and this

    def restore_random_state(self) -> None:
        """Continue the generators of the checkpoint; a process that its run did not have begins others."""
        rank = self._run.accelerator.process_index
        if self._random is None:
            return
        if rank < len(self._random):
            restore_random_state(self._random[rank])
        else:
            seed_generators(self._run.config.settings.seed, rank, self.step)

    def _state(self, totals: dict[str, float], randoms: list[dict[str, Any]]) -> dict[str, Any]:
        scaler = self._run.accelerator.scaler
        return {
            "step": self.step,
            "optimizer": self._run.optimizer.state_dict(),
            "objective": self._run.objective.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "meter": totals,
            "random": randoms,
            "seconds": self.seconds,
            "best_top1": self.best_top1,
            "best_epoch": self.best_epoch,
        }

    def _publish(self, checkpoint: Checkpoint) -> None:
        self._folder.checkpoints.publish(checkpoint, LAST)
        if (
            self.best_epoch is not None
            and checkpoint.step == self.best_epoch * self._run.plan.steps_per_epoch
        ):
            self._folder.checkpoints.publish(checkpoint, BEST)
