from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.trainer.runs import config, write_digits_cache
from trainer.run import progress as display
from trainer.run.loop import train
from trainer.run.progress import ConsoleDisplay, epoch_line

ROW = {
    "step": 5, "epoch": 2, "lr": 0.1, "train_loss": 1.25, "train_top1": 0.5, "teacher_top1": 0.75,
    "train_agreement": 0.25,
    "val_top1": 0.4, "val_top5": 0.9, "val_nll": 1.5, "samples_per_s": 1234.0,
}  # fmt: skip


def test_an_epoch_is_one_line():
    assert epoch_line(ROW, 30) == (
        "epoch  2/30  loss 1.250  train  50.0%  teacher  75.0%  agrees  25.0%  held out  40.0% "
        "(top-5 90.0%, nll 1.500)  1,234 samples/s"
    )
    bare = {key: ROW[key] for key in ("epoch", "train_loss", "samples_per_s")}
    assert epoch_line(bare, 2) == "epoch 2/2  loss 1.250  1,234 samples/s"


@pytest.mark.parametrize("terminal", [True, False])
def test_it_tells_the_same_on_a_terminal_and_elsewhere(tmp_path, terminal):
    cache = write_digits_cache(tmp_path / "digits.zarr")
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200)
    train(config(tmp_path / "a", cache, val_data="digits:test", epochs=2), display=ConsoleDisplay(console))
    shown = text.getvalue()
    assert "data      digits:train: 160 samples" in shown
    assert "epoch 1/2" in shown
    assert "epoch 2/2" in shown
    # Only a terminal gets what moves.
    assert ("\x1b[" in shown) == terminal
    assert ("10/10 steps" in shown) == terminal


def test_a_log_file_hears_of_long_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr(display, "_LINE_EVERY_S", 0.0)
    cache = write_digits_cache(tmp_path / "digits.zarr")
    text = io.StringIO()
    train(config(tmp_path / "a", cache, epochs=2), display=ConsoleDisplay(Console(file=text, width=200)))
    assert text.getvalue().count("steps/s") == 10
    assert "step 7/10" in text.getvalue()
