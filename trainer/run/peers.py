"""The other processes of a run: what all of them agree on, and what is said when one of them is gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from cache_builder.format import DataError, KDCacheError
from trainer.run.checkpoint import Checkpoint, Checkpoints

# What one process may do while the others wait for it, beside waiting for its server: render pictures, look
# through a data set, write to a slow disk.
_OWN_WORK_S = 600.0
# gloo raises plain RuntimeErrors, whose text begins with the file of its own that raised them.
_GLOO = ("gloo/", "Connection closed by peer", "Connection reset by peer")
_PLACE = re.compile(r"^\[\S+:\d+\] ")


class PeerLostError(KDCacheError):
    """Another process of the run ended or fell silent, so this one cannot go on."""


def timeout_of(patience_s: float) -> timedelta:
    """After which a process that does not answer the others is given up.

    ``patience_s``: how long each of them waits for its server.
    """
    return timedelta(seconds=patience_s + _OWN_WORK_S)


@contextmanager
def watched() -> Iterator[None]:
    """Turn what a lost process makes of the others' communication into a sentence."""
    try:
        yield
    except RuntimeError as error:
        if not _is_of_peers(error):
            raise
        raise PeerLostError(
            "another process of this run ended or no longer answers, so this one ends too "
            f"({_reason(error)}): its own message says why; the same command with --resume goes on from the "
            "last checkpoint, with as many processes as there are then"
        ) from error


def _reason(error: RuntimeError) -> str:
    """What happened, without the file that raised it and without advice to programmers."""
    first_line = str(error).strip().split("\n")[0]
    return _PLACE.sub("", first_line).split(". ")[0]


def _is_of_peers(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in _GLOO)


def agree(accelerator: Accelerator, *wishes: bool) -> list[bool]:
    """Each wish granted where any process has it: all must stop, or save, at the same step."""
    if accelerator.num_processes == 1:
        return list(wishes)
    votes = torch.tensor(wishes, dtype=torch.float32, device=accelerator.device)
    return [vote > 0 for vote in accelerator.reduce(votes, reduction="sum").tolist()]


def chosen_checkpoint(accelerator: Accelerator, checkpoints: Checkpoints) -> Checkpoint | None:
    """The newest whole checkpoint as the main process sees it; None where there is none yet.

    Raises :class:`DataError` in every process where one of them does not see the same files.
    """
    newest = checkpoints.newest() if accelerator.is_main_process else None
    if accelerator.num_processes == 1:
        return newest
    (step,) = broadcast_object_list([None if newest is None else newest.step])
    if step is None:
        return None
    checkpoint = checkpoints.of_step(step)
    seen = gather_object([None if accelerator.is_main_process else checkpoint.damage()])
    for rank, problem in enumerate(seen):
        if problem is not None:
            raise DataError(
                f"process {rank} of {len(seen)} does not read the checkpoint {checkpoint.folder} that "
                f"process 0 chose ({problem}): --out must be one folder that every process sees"
            )
    return checkpoint
