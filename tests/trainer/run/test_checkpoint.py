from __future__ import annotations

import errno
import json
import os
import random

import pytest
import torch
from torch import nn

from cache_builder.format import DataError, KDCacheError
from cache_builder.teachers.weights import read_weights
from trainer.run.checkpoint import Checkpoints, load_weights, random_state, restore_random_state, save_weights
from trainer.students import cnn3


def test_weights_and_state_come_back(tmp_path):
    torch.manual_seed(0)
    student = cnn3(width=4)
    state = {"numbers": torch.arange(3), "nested": {"value": 1.5, "tuple": (1, None)}}
    Checkpoints(tmp_path).write(7, student, {"a": 1}, state, "{}")
    found = Checkpoints(tmp_path).newest()
    assert found.step == 7
    assert torch.equal(found.load_state()["numbers"], torch.arange(3))
    assert found.load_state()["nested"] == state["nested"]
    other = cnn3(width=4)
    load_weights(found.weights, other)
    for name, value in student.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_only_the_last_few_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, kept=2)
    for step in (1, 20, 100):
        checkpoints.write(step, cnn3(width=4), {}, {}, "{}")
    assert names(tmp_path) == ["step-00000020", "step-00000100"]


def test_a_kill_while_an_old_one_is_removed_leaves_no_damaged_one(tmp_path, monkeypatch, caplog):
    checkpoints = Checkpoints(tmp_path, kept=1)
    first = checkpoints.write(1, cnn3(width=4), {}, {}, "{}")

    def killed(folder, **_):
        if folder.exists():
            (folder / "state.pt").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("trainer.run.checkpoint.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.write(2, cnn3(width=4), {}, {}, "{}")
    assert not first.folder.exists()
    assert checkpoints.newest().step == 2
    checkpoints.set_damaged_aside()
    checkpoints.write(3, cnn3(width=4), {}, {}, "{}")
    assert names(tmp_path) == ["step-00000003"]
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("file", ["weights.safetensors", "state.pt", "config.json", "checksums.json"])
def test_one_flipped_bit_anywhere_and_the_checkpoint_before_is_taken(tmp_path, caplog, file):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.write(step, cnn3(width=4), {}, {"numbers": torch.arange(50)}, '{"a": "config"}')
    _flip(tmp_path / "checkpoints/step-00000002" / file)
    assert checkpoints.newest().step == 1
    assert "step-00000002" in caplog.text
    assert "damaged" in caplog.text


def test_a_file_that_is_gone_is_damage(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.write(step, cnn3(width=4), {}, {}, "{}")
    (tmp_path / "checkpoints/step-00000002/state.pt").unlink()
    assert checkpoints.newest().step == 1


def test_where_all_are_damaged_nothing_is_taken_and_nothing_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, cnn3(width=4), {}, {}, "{}")
    _flip(tmp_path / "checkpoints/step-00000001/weights.safetensors")
    with pytest.raises(DataError, match=r"every checkpoint .* is damaged .step-00000001"):
        checkpoints.newest()
    assert names(tmp_path) == ["step-00000001"]


def test_a_damaged_step_can_be_written_again_and_stays_beside_it(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.write(step, cnn3(width=4), {}, {}, "{}")
    _flip(tmp_path / "checkpoints/step-00000002/weights.safetensors")
    checkpoints.set_damaged_aside()
    checkpoints.write(2, cnn3(width=4), {}, {}, "{}")
    assert checkpoints.newest().step == 2
    assert names(tmp_path) == ["damaged-1-step-00000002", "step-00000001", "step-00000002"]


def test_a_step_that_is_damaged_again_is_written_again(tmp_path):
    """Returned as it lay it would be published."""
    checkpoints = Checkpoints(tmp_path)
    for _ in range(3):
        written = checkpoints.write(2, cnn3(width=4), {}, {}, "{}")
        assert written.damage() is None
        _flip(written.weights)
    checkpoints.set_damaged_aside()
    assert names(tmp_path) == [f"damaged-{count}-step-00000002" for count in (1, 2, 3)]


def test_an_old_one_that_rotted_is_named_when_it_goes(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, kept=1)
    _flip(checkpoints.write(1, cnn3(width=4), {}, {}, "{}").weights)
    checkpoints.write(2, cnn3(width=4), {}, {}, "{}")
    assert "step-00000001 was damaged" in caplog.text


@pytest.mark.parametrize("sums", ["{}", "[]", "3", '{"weights.safetensors": "0"}'])
def test_checksums_that_leave_files_out_vouch_for_nothing(tmp_path, sums):
    written = Checkpoints(tmp_path).write(1, cnn3(width=4), {}, {}, "{}")
    (written.folder / "checksums.json").write_text(sums)
    assert written.damage() is not None


def test_a_flipped_bit_in_published_weights_is_told(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.publish(checkpoints.write(1, cnn3(width=4), {}, {}, "{}"), "best.safetensors")
    data = bytearray((tmp_path / "best.safetensors").read_bytes())
    data[-3] ^= 64
    (tmp_path / "best.safetensors").write_bytes(data)
    with pytest.raises(DataError, match=r"best\.safetensors are damaged"):
        load_weights(tmp_path / "best.safetensors", cnn3(width=4))
    with pytest.raises(DataError, match="not those that were written"):
        read_weights(tmp_path / "best.safetensors")


def test_a_checkpoint_of_an_older_release_has_no_checksums_and_is_taken(tmp_path, caplog):
    written = Checkpoints(tmp_path).write(1, cnn3(width=4), {}, {}, "{}")
    (written.folder / "checksums.json").unlink()
    assert Checkpoints(tmp_path).newest().step == 1
    assert "has no checksums" in caplog.text


def test_a_write_that_fails_keeps_the_ones_before_and_says_how_to_go_on(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, cnn3(width=4), {}, {}, "{}")
    monkeypatch.setattr(torch, "save", _disk_full)
    with pytest.raises(KDCacheError, match=r"step-00000002 could not be written: the disk is full.*--resume"):
        checkpoints.write(2, cnn3(width=4), {}, {}, "{}")
    assert names(tmp_path) == ["step-00000001"]


def test_a_run_folder_that_went_away_does_not_come_back(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    with pytest.raises(KDCacheError, match=r"run is gone"):
        checkpoints.write(1, cnn3(width=4), {}, {}, "{}")
    assert not (tmp_path / "run").exists()


def _disk_full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 64
    path.write_bytes(data)


def test_an_unfinished_one_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(5, cnn3(width=4), {}, {}, "{}")
    (tmp_path / "checkpoints" / ".step-00000009.partial").mkdir()
    assert checkpoints.newest().step == 5
    checkpoints.write(9, cnn3(width=4), {}, {}, "{}")
    assert names(tmp_path) == ["step-00000005", "step-00000009"]


def test_a_folder_without_any_has_none(tmp_path):
    assert Checkpoints(tmp_path).newest() is None


@pytest.mark.parametrize("links", [True, False])
def test_published_weights_outlive_the_checkpoint(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    checkpoints, student = Checkpoints(tmp_path), cnn3(width=4)
    checkpoints.publish(checkpoints.write(1, student, {"epoch": 1}, {}, "{}"), "best.safetensors")
    checkpoints.write(2, cnn3(width=4), {}, {}, "{}")
    other = cnn3(width=4)
    load_weights(tmp_path / "best.safetensors", other)
    assert torch.equal(other[0].weight, student[0].weight)
    checkpoints.publish(checkpoints.write(3, other, {"epoch": 3}, {}, "{}"), "best.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoints", "best.safetensors"}


def _no_links(*_):
    raise OSError("no hard links here")


def test_others_may_read_the_weights(tmp_path):
    written = Checkpoints(tmp_path).write(1, cnn3(width=4), {}, {}, "{}")
    assert written.weights.stat().st_mode == (written.folder / "config.json").stat().st_mode


def test_the_card_travels_in_the_file(tmp_path):
    from safetensors import safe_open

    save_weights(tmp_path / "w.safetensors", cnn3(width=4), {"input_size": 8})
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        card = json.loads(file.metadata()["kdcache"])
    assert card.pop("payload_xxh64")
    assert card == {"input_size": 8}


def test_tied_weights_survive(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

    student, other = Tied(), Tied()
    save_weights(tmp_path / "w.safetensors", student, {})
    load_weights(tmp_path / "w.safetensors", other)
    assert torch.equal(other.b.weight, student.a.weight)


def test_weights_of_another_student_are_refused(tmp_path):
    save_weights(tmp_path / "w.safetensors", cnn3(width=4), {})
    with pytest.raises(DataError, match="do not fit the student"):
        load_weights(tmp_path / "w.safetensors", cnn3(width=8))


def test_random_numbers_continue():
    state = random_state()
    expected = torch.rand(3), random.random()
    torch.rand(100), random.random()
    restore_random_state(state)
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]
