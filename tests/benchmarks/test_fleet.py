"""Builders on leases: the simulation does all the work, whatever happens, and the formula agrees with it."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from benchmarks.fleet import TAKEOVER_S, Fleet, Job, Outcome, expected, simulated

HOUR_S = 3600.0
JOB = Job(blocks=1500, tiles_per_block=4, block_s=60.0)
QUIET = Fleet(builders=30)
BUSY = replace(QUIET, slow_share=0.1, slow_speed=0.5, death_every_s=4 * HOUR_S, preempted_every_s=2 * HOUR_S)


def median_s(job: Job, fleet: Fleet) -> float:
    return statistics.median(simulated(job, fleet, seed).seconds for seed in range(9))


@pytest.mark.parametrize(
    "fleet",
    [
        QUIET,
        replace(QUIET, slow_share=0.1, slow_speed=0.5),
        replace(QUIET, death_every_s=2 * HOUR_S),
        replace(QUIET, preempted_every_s=HOUR_S),
        BUSY,
    ],
)
def test_the_formula_is_within_five_percent(fleet: Fleet) -> None:
    assert expected(JOB, fleet) == pytest.approx(median_s(JOB, fleet), rel=0.05)


def test_where_nothing_happens_the_work_is_divided_and_nothing_else() -> None:
    outcome = simulated(JOB, QUIET, seed=0)
    assert outcome == Outcome(seconds=pytest.approx(QUIET.start_s + 1500 / 30 * 60))


def test_a_seed_is_a_build() -> None:
    assert simulated(JOB, BUSY, seed=3) == simulated(JOB, BUSY, seed=3)
    assert simulated(JOB, BUSY, seed=3) != simulated(JOB, BUSY, seed=4)


def test_what_is_lost_of_a_builder_that_ends_is_less_than_a_tile() -> None:
    outcome = simulated(JOB, BUSY, seed=0)
    assert outcome.deaths
    assert outcome.preemptions
    assert 0 < outcome.lost_s < (outcome.deaths + outcome.preemptions) * JOB.tile_s / BUSY.slow_speed
    assert outcome.takeovers <= outcome.deaths + outcome.preemptions


def test_no_build_is_faster_than_its_work_at_full_speed() -> None:
    least = JOB.blocks * JOB.block_s / BUSY.builders
    assert all(simulated(JOB, BUSY, seed).seconds > least for seed in range(5))


def test_a_lone_block_whose_builder_dies_waits_for_the_lease_to_expire() -> None:
    job = Job(blocks=1, tiles_per_block=100, block_s=HOUR_S)
    fleet = Fleet(builders=2, death_every_s=2 * HOUR_S, replaced_after_s=0.0)
    quiet_s = fleet.start_s + job.block_s
    for seed in range(20):
        outcome = simulated(job, fleet, seed)
        assert outcome.seconds >= quiet_s + outcome.takeovers * TAKEOVER_S - 1e-6 or not outcome.takeovers
        assert (outcome.takeovers > 0) == (outcome.seconds > quiet_s + 1e-6)


def test_more_builders_than_blocks_do_not_help() -> None:
    job = Job(blocks=10, tiles_per_block=4, block_s=60.0)
    assert expected(job, Fleet(builders=10)) == expected(job, Fleet(builders=1000))
    assert simulated(job, Fleet(builders=1000), 0).seconds == pytest.approx(120 + 60)
