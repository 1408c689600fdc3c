"""Checkpoints: weights as safetensors, the state of everything else, the configuration; whole or not there.

checkpoints/step-00001234/   weights.safetensors  state.pt  config.json
best.safetensors  last.safetensors               the weights alone, for use elsewhere
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from cache_builder.format import DataError
from cache_builder.format.store import fsync_folder

WEIGHTS, STATE, CONFIG = "weights.safetensors", "state.pt", "config.json"
METADATA_KEY = "kdcache"


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

    def load_state(self) -> dict[str, Any]:
        """Everything but the weights. Tensors and plain values only: no code in the file is run."""
        try:
            state: dict[str, Any] = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
            raise DataError(f"checkpoint {self.folder} is damaged: {_first_line(error)}") from error
        return state


class Checkpoints:
    """The checkpoints of one run. The newest is kept; it is complete, for it got its name in one rename."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._folder = run / "checkpoints"

    def newest(self) -> Checkpoint | None:
        """The checkpoint with the most steps, None where there is none."""
        found = [Checkpoint(path, int(path.name.split("-")[1])) for path in self._folder.glob("step-*")]
        return max(found, key=lambda checkpoint: checkpoint.step, default=None)

    def write(
        self, step: int, student: nn.Module, card: dict[str, Any], state: dict[str, Any], config: str
    ) -> Checkpoint:
        """Write a checkpoint, then remove older ones. ``card``: what users of the weights want to know."""
        final = Checkpoint(self._folder / f"step-{step:08d}", step)
        if final.folder.exists():  # a resumed run that was stopped before its first step: nothing is new
            return final
        making = self._folder / f".step-{step:08d}.partial"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        (making / CONFIG).write_text(config)
        torch.save(state, making / STATE)
        save_weights(making / WEIGHTS, student, card)
        # safetensors lets only the owner read; these weights are for whoever may read the run.
        (making / WEIGHTS).chmod((making / CONFIG).stat().st_mode)
        for name in (WEIGHTS, STATE, CONFIG):
            _fsync(making / name)
        fsync_folder(making)
        making.rename(final.folder)
        fsync_folder(self._folder)
        self._remove_all_but(final)
        return final

    def publish(self, checkpoint: Checkpoint, name: str) -> None:
        """Give a checkpoint's weights a second name in the run's folder, replacing what had it."""
        making = self._run / f".{name}.partial"
        making.unlink(missing_ok=True)
        try:
            os.link(checkpoint.weights, making)
        except OSError:  # a file system without hard links
            shutil.copyfile(checkpoint.weights, making)
            _fsync(making)
        making.replace(self._run / name)
        fsync_folder(self._run)

    def _remove_all_but(self, kept: Checkpoint) -> None:
        for path in [*self._folder.glob("step-*"), *self._folder.glob(".step-*.partial")]:
            if path != kept.folder:
                shutil.rmtree(path)


def save_weights(path: Path, student: nn.Module, card: dict[str, Any]) -> None:
    """Weights as safetensors; the card travels in the file's metadata, as JSON under ``kdcache``."""
    save_model(student, str(path), metadata={METADATA_KEY: json.dumps(card)})


def load_weights(path: Path, student: nn.Module) -> None:
    """Weights of a file into a student of the same shape; raises :class:`DataError` where they do not fit."""
    try:
        load_model(student, str(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise DataError(f"weights {path} do not fit the student: {_first_line(error)}") from error


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


def write_text(path: Path, text: str) -> None:
    """Replace a small file in one rename, so that it is never half there."""
    making = path.with_name(f".{path.name}.partial")
    making.write_text(text)
    _fsync(making)
    making.replace(path)
    fsync_folder(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
