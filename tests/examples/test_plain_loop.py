"""The loop that README quotes runs against a server, in at most 30 lines, and its student has learned."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import torch

from cache_builder.datasets import open_source
from cache_builder.tensors.normalise import normalise
from tests.trainer.replay_caches import write_replay_cache
from tests.trainer.servers import server
from trainer.students import cnn3

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_loop.py"


def test_it_has_at_most_thirty_lines():
    assert len(EXAMPLE.read_text().splitlines()) <= 30


def test_its_student_knows_held_out_digits(tmp_path, monkeypatch):
    write_replay_cache(tmp_path / "a.zarr", open_source("digits:train"), views=2)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    with server(tmp_path / "a.zarr") as url:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), url, "digits:train"])
        left = runpy.run_path(str(EXAMPLE), run_name="__main__")
        left["cache"].close()
    student = cnn3().eval()
    student.load_state_dict(torch.load(tmp_path / "student.pt", weights_only=True))
    held_out = open_source("digits:test")
    images = torch.stack([held_out.read(row).value for row in range(len(held_out))])
    with torch.inference_mode():
        guesses = student(normalise(images, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))).argmax(1)
    # By chance it would be 0.1.
    assert (guesses.numpy() == held_out.labels).mean() > 0.8
