"""Checkpoints: weights as safetensors, the state of everything else, the configuration; whole or not there.

checkpoints/step-00001234/   weights.safetensors  state.pt  config.json  checksums.json
checkpoints/damaged-step-…/  one whose bytes are not what its checksums say: kept, never taken
best.safetensors  last.safetensors               the weights alone, for use elsewhere
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import pickle
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from cache_builder.format import DataError, KDCacheError
from cache_builder.format.durable import fsync_file, fsync_folder, take_name
from cache_builder.tensors.payload import PAYLOAD_KEY, tensors_digest
from trainer.run.settings import KEPT_CHECKPOINTS

WEIGHTS, STATE, CONFIG, CHECKSUMS = "weights.safetensors", "state.pt", "config.json", "checksums.json"
_SUMMED = (WEIGHTS, STATE, CONFIG)
METADATA_KEY = "kdcache"

_READ_BYTES = 2**20
# Less room than this on the disk of a write that failed: it was full.
_NO_ROOM_BYTES = 2**20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint on disk."""

    folder: Path
    step: int
    """Optimiser steps done."""

    @property
    def weights(self) -> Path:
        """The student's weights."""
        return self.folder / WEIGHTS

    def damage(self) -> str | None:
        """What is wrong with its files, in words; None where every byte is what was written.

        A checkpoint of an older release has no checksums: only that its files are there can be told.
        """
        if not self.has_checksums:
            missing = [name for name in (WEIGHTS, STATE) if not (self.folder / name).exists()]
            return f"{missing[0]} is missing" if missing else None
        try:
            expected = json.loads((self.folder / CHECKSUMS).read_text())
            wrong = [name for name in _SUMMED if file_digest(self.folder / name) != expected[name]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{CHECKSUMS} or a file it names cannot be read: {_first_line(error)}"
        return f"{' and '.join(wrong)}: the bytes are not those that were written" if wrong else None

    @property
    def has_checksums(self) -> bool:
        """Whether damage can be told; not for a checkpoint of an older release."""
        return (self.folder / CHECKSUMS).exists()

    def load_state(self) -> dict[str, Any]:
        """Everything but the weights. Tensors and plain values only: no code in the file is run."""
        try:
            state: dict[str, Any] = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
            raise DataError(f"checkpoint {self.folder} is damaged: {_first_line(error)}") from error
        return state


class Checkpoints:
    """The last few checkpoints of one run; each got its name in one rename, when it was whole."""

    def __init__(self, run: Path, kept: int = KEPT_CHECKPOINTS, name: str | None = None) -> None:
        """``name``: what the user calls the run, where its files are only at hand in ``run``."""
        self._run = run
        self._name = name or str(run)
        self._folder = run / "checkpoints"
        self._kept = kept

    def newest(self) -> Checkpoint | None:
        """The checkpoint with the most steps whose bytes are what was written, None where there is none yet.

        A damaged one is named in the log and the one before is taken. Raises :class:`DataError` where all
        are damaged.
        """
        found = self._all()
        for checkpoint in reversed(found):
            problem = checkpoint.damage()
            if problem is None:
                if not checkpoint.has_checksums:
                    log.warning("checkpoint %s has no checksums, so it is taken unchecked", checkpoint.folder)
                return checkpoint
            log.warning("checkpoint %s is damaged (%s): it is not used", checkpoint.folder, problem)
        if found:
            names = ", ".join(checkpoint.folder.name for checkpoint in found)
            raise DataError(
                f"every checkpoint of {self._name} is damaged ({names}): "
                "restore one from a copy, or train anew with another --out; nothing was removed"
            )
        return None

    def of_step(self, step: int) -> Checkpoint:
        """The checkpoint of a step, whether it is there or not."""
        return Checkpoint(self._folder / f"step-{step:08d}", step)

    def set_damaged_aside(self) -> None:
        """Give damaged checkpoints another name, so that the run can write those steps again."""
        for checkpoint in self._all():
            if checkpoint.damage() is not None:
                _set_aside(checkpoint)

    def write(
        self, step: int, student: nn.Module, card: dict[str, Any], state: dict[str, Any], config: str
    ) -> Checkpoint:
        """Write a checkpoint, then remove all but the last few. ``card``: what users of the weights want.

        One of this step that is there and whole is kept: a resumed run that was stopped before its first step
        has nothing new.
        Raises :class:`KDCacheError` where the disk is full or away; those that were written before stay.
        """
        final = self.of_step(step)
        if final.folder.exists():
            if final.damage() is None:
                return final
            _set_aside(final)
        making = _partial(final.folder)
        with _write_errors(making):
            shutil.rmtree(making, ignore_errors=True)
            # Not with its parents: a folder of a run that went away must not come back half.
            self._folder.mkdir(exist_ok=True)
            making.mkdir()
            _write_files(making, student, card, state, config)
            take_name(making, final.folder)
        self._remove_old()
        return final

    def _all(self) -> list[Checkpoint]:
        """By rising step."""
        found = [Checkpoint(path, int(path.name.split("-")[1])) for path in self._folder.glob("step-*")]
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def publish(self, checkpoint: Checkpoint, name: str) -> None:
        """Give a checkpoint's weights a second name in the run's folder, replacing what had it."""
        making = self._run / f".{name}.partial"
        making.unlink(missing_ok=True)
        try:
            os.link(checkpoint.weights, making)
        except OSError:  # a file system without hard links
            shutil.copyfile(checkpoint.weights, making)
            fsync_file(making)
        take_name(making, self._run / name)

    def _remove_old(self) -> None:
        for checkpoint in self._all()[: -self._kept]:
            problem = checkpoint.damage()
            if problem is not None:
                log.warning(
                    "checkpoint %s was damaged (%s): is the disk failing?", checkpoint.folder, problem
                )
            # Under a name that nobody takes for a checkpoint, since a kill may leave half of it.
            going = _partial(checkpoint.folder)
            checkpoint.folder.rename(going)
            shutil.rmtree(going)
        for path in self._folder.glob(".step-*.partial"):
            shutil.rmtree(path)


def _partial(folder: Path) -> Path:
    """The name of a checkpoint that is not whole: not yet, or no longer."""
    return folder.with_name(f".{folder.name}.partial")


def _set_aside(checkpoint: Checkpoint) -> None:
    """Give a damaged one a name that no other has."""
    names = (f"damaged-{count}-{checkpoint.folder.name}" for count in itertools.count(1))
    free = (checkpoint.folder.with_name(name) for name in names)
    checkpoint.folder.rename(next(path for path in free if not path.exists()))


def file_digest(path: Path) -> str:
    """xxh64 of a file's bytes, in hex."""
    digest = xxhash.xxh64()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _write_files(
    folder: Path, student: nn.Module, card: dict[str, Any], state: dict[str, Any], config: str
) -> None:
    """The files of a checkpoint, on the disk, and last the checksums of what is on the disk."""
    (folder / CONFIG).write_text(config)
    torch.save(state, folder / STATE)
    save_weights(folder / WEIGHTS, student, card)
    # safetensors lets only the owner read; these weights are for whoever may read the run.
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)
    for name in _SUMMED:
        fsync_file(folder / name)
    checksums = {name: file_digest(folder / name) for name in _SUMMED}
    (folder / CHECKSUMS).write_text(json.dumps(checksums, indent=1))
    fsync_file(folder / CHECKSUMS)
    fsync_folder(folder)


@contextmanager
def _write_errors(making: Path) -> Iterator[None]:
    """Turn what a full or vanished disk makes of a write into a sentence, and leave no half checkpoint.

    torch and safetensors tell a write that failed by errors of their own.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        why = _why_not_written(making, error)
        shutil.rmtree(making, ignore_errors=True)
        raise KDCacheError(
            f"checkpoint {making.parent}/{making.stem.lstrip('.')} could not be written: {why}; the ones "
            "before are kept, and the same command with --resume goes on from the last"
        ) from error


def _why_not_written(making: Path, error: BaseException) -> str:
    run = making.parent.parent
    if not run.is_dir():
        return f"the folder {run} is gone: put it back (was its disk unmounted?)"
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if full or shutil.disk_usage(run).free < _NO_ROOM_BYTES:
        return "the disk is full: free some space"
    return _first_line(error)


def save_weights(path: Path, student: nn.Module, card: dict[str, Any]) -> None:
    """Weights as safetensors; the card travels in the file's metadata, as JSON under ``kdcache``.

    With it the digest of the numbers, which safetensors itself does not keep.
    """
    making = path.with_name(f".{path.name}.partial")
    save_model(student, str(making))  # settles which of tied weights is kept
    tensors = load_file(making)
    card = card | {PAYLOAD_KEY: tensors_digest(tensors)}
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(card)})
    making.unlink()


def load_weights(path: Path, student: nn.Module) -> None:
    """Weights of a file into a student of the same shape.

    Raises :class:`DataError` where they do not fit, or are not the numbers that were written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        expected = card.get(PAYLOAD_KEY)
        is_whole = expected is None or tensors_digest(load_file(path)) == expected
        load_model(student, str(path))
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise DataError(f"weights {path} do not fit the student: {_first_line(error)}") from error
    if not is_whole:
        raise DataError(
            f"weights {path} are damaged: the numbers are not those that were written; take another file of "
            "the run (checkpoints/, last.safetensors), or restore it from a copy"
        )


def random_state() -> dict[str, Any]:
    """The generators that a student may draw from: torch's, CUDA's, Python's."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate()}


def restore_random_state(state: dict[str, Any]) -> None:
    """Continue those generators where ``random_state`` was taken."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def seed_generators(seed: int, rank: int, step: int) -> None:
    """Begin those generators for a process that joins a run at a step: as no other process or step does."""
    (word,) = np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)
    torch.manual_seed(int(word))
    random.seed(int(word))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
