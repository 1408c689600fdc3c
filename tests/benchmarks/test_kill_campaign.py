"""A few kills of the campaign in ``benchmarks/kill_campaign.py``."""

from __future__ import annotations

import pytest

from benchmarks.kill_campaign import PHASES, Tally, campaign


@pytest.mark.slow
def test_one_kill_of_each_command_in_turn() -> None:
    with campaign() as killing:
        for turn, job in enumerate(killing.jobs):
            tally = Tally()
            while not tally.kills:
                killing.kill(job, PHASES[turn % len(PHASES)], tally)
            assert (tally.identical, tally.untouched) == (1, 1), f"{job.name}: {tally}"
            assert max(tally.reruns) == 1, f"{job.name}: {tally}"
