"""What is said of lost processes; real ones are killed in ``tests.trainer.kill_campaign``."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch.distributed as dist

from trainer.run.peers import PeerLostError, timeout_of, watched


@pytest.mark.parametrize(
    "error",
    [
        dist.DistBackendError("NCCL error"),
        dist.DistStoreError("Timed out after 720 seconds waiting for clients. 1/2 clients joined."),
        RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:5"),
    ],
)
def test_errors_of_communication_are_one_sentence(error):
    with (
        pytest.raises(PeerLostError, match=r"another process of this run ended.*--resume goes on") as told,
        watched(),
    ):
        raise error
    assert "\n" not in str(told.value)
    assert "pair.cc" not in str(told.value)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), watched():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_a_process_may_wait_for_its_server_while_the_others_wait_for_it():
    assert timeout_of(3600.0) > timedelta(hours=1)
