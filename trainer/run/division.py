"""How a step's batch is divided among processes and micro-batches, and what a run that goes on divided
otherwise can keep of its numbers.

The samples of every step are the same in any division. Each loss is a mean over them, so weights and metrics
are too, within floating point, except for what looks at the micro-batch as a whole.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from cache_builder.format import ConfigError
from trainer.run.checkpoint import CONFIG, Checkpoint

if TYPE_CHECKING:
    from trainer.run.assemble import Run

log = logging.getLogger(__name__)


class Division(NamedTuple):
    """Into how many parts a batch is divided."""

    processes: int
    accumulation: int
    """Micro-batches of one step in each process."""

    @property
    def parts(self) -> int:
        """Micro-batches of one step in all processes."""
        return self.processes * self.accumulation

    def __str__(self) -> str:
        """In words."""
        return f"{self.processes} process(es) with {self.accumulation} micro-batch(es) a step each"


def division_of(checkpoint: Checkpoint, state: dict[str, Any]) -> Division:
    """How the run was divided that wrote a checkpoint: one state of random generators a process."""
    config = json.loads((checkpoint.folder / CONFIG).read_text())
    return Division(len(state["random"]), config["settings"]["accumulation"])


def check_division(run: Run, before: Division) -> None:
    """Raise :class:`ConfigError`, naming the loss, where another division would change what is minimised.

    What it changes of the student itself (statistics of micro-batches, random numbers) is told in the log.
    """
    now = Division(run.plan.world, run.plan.accumulation)
    if now == before:
        return
    for loss in run.objective.losses:
        if loss.couples_samples and now.parts != before.parts:
            raise ConfigError(
                f"loss {loss.name!r} compares the samples of a micro-batch with each other; the run was "
                f"done by {before}, this is {now}, and its micro-batches would have other samples: use a "
                f"number of processes and --accumulation whose product is {before.parts}"
            )
        if loss.needs_held_out:
            raise ConfigError(
                f"loss {loss.name!r} takes a trial step in every process with the first micro-batch, so it "
                f"must go on as it was done: by {before}; this is {now}"
            )
    if run.accelerator.is_main_process:
        _tell(run, before, now)


def _tell(run: Run, before: Division, now: Division) -> None:
    changed = []
    if now.parts != before.parts and any(_has_batch_statistics(part) for part in run.student.modules()):
        sizes = [run.plan.batch_size // division.parts for division in (before, now)]
        changed.append(f"BatchNorm sees {sizes[1]} samples at once, before {sizes[0]}")
    # Whether it draws any, nobody can see from outside: a function may do so as well as a module.
    changed.append("what the student draws at random (dropout), if it does, is drawn in another order")
    log.warning(
        "the run goes on by %s, before by %s: every step has the same samples, but %s",
        *(now, before, " and ".join(changed)),
    )


def _has_batch_statistics(part: nn.Module) -> bool:
    # The common base of BatchNorm1d to 3d has no public name.
    return isinstance(part, nn.modules.batchnorm._BatchNorm)
