"""Losses with state go on where they were: a resumed run ends as one that was not stopped."""

from __future__ import annotations

import signal

import pytest
import torch

from tests.trainer.runs import assert_same_weights, config, write_digits_cache
from tests.trainer.test_resume import AtStep, metrics, send
from trainer.run.checkpoint import Checkpoints
from trainer.run.loop import train

# Every loss that keeps something between steps, set so that it matters within a few of them; then what else a
# run may keep: two views, an auxiliary head with running statistics, labels that only some samples have.
OBJECTIVES = {
    "taid": {"loss": "taid(step=0.5)"},
    "adakd": {"loss": "adakd(ratio=0.5)"},
    "ctkd": {"loss": "ce*0.1 + ctkd(loss=kd)*0.9"},
    "inner": {"loss": "standardized(loss=ctkd(loss=dkd))"},
    "tgeo": {"loss": "tgeo", "epochs": 6},
    "crld": {"loss": "crld"},
    "binary_kl": {"loss": "binary_kl", "aux_head": "mlp(hidden=20)"},
    "dho": {"loss": "dho", "labelled": 0.3},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


def objective_state(run):
    return Checkpoints(run).newest().load_state()["objective"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_resumed_run_ends_the_same(cache, tmp_path, name):
    settings = OBJECTIVES[name]
    train(config(tmp_path / "a", cache, **settings))
    stopped = config(tmp_path / "b", cache, **settings)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, display=AtStep(12 if name == "tgeo" else 7, send(signal.SIGINT)))
    train(stopped, resume=True)
    assert_same_weights(tmp_path / "b", tmp_path / "a")
    assert metrics(tmp_path / "b") == metrics(tmp_path / "a")
    ours, theirs = objective_state(tmp_path / "b"), objective_state(tmp_path / "a")
    assert ours.keys() == theirs.keys()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["taid", "adakd", "ctkd", "tgeo"])
def test_the_state_matters_for_what_follows(cache, tmp_path, name, monkeypatch):
    """Were it lost, the run would end elsewhere: the test above can fail."""
    from trainer.objective.objective import Objective

    train(config(tmp_path / "a", cache, **OBJECTIVES[name]))
    stopped = config(tmp_path / "b", cache, **OBJECTIVES[name])
    with pytest.raises(KeyboardInterrupt):
        train(stopped, display=AtStep(12 if name == "tgeo" else 7, send(signal.SIGINT)))
    monkeypatch.setattr(Objective, "load_state_dict", lambda *_: None)
    train(stopped, resume=True)
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "b", tmp_path / "a")
