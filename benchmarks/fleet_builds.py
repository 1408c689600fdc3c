"""A thousand builders on leases, simulated, against the formula of the capacity model, with a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace

import matplotlib as mpl

from benchmarks.capacity_model import HOUR_S, Assumed, Measured, Work, works
from benchmarks.fleet import POLL_S, TAKEOVER_S, Fleet, Outcome, expected, simulated
from benchmarks.report import RESULTS, write_results

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen

SEEDS = 3
TOLERANCE = 0.05
"""How far the formula may be from the simulation where a builder has :data:`ENOUGH_BLOCKS` of them."""
ENOUGH_BLOCKS = 20
SLOW = Fleet(slow_share=0.02, slow_speed=1 / 3)
FLEETS = {
    "nothing happens": Fleet(),
    "2% are three times as slow": SLOW,
    "each dies once a day": Fleet(death_every_s=24 * HOUR_S),
    "each is pre-empted every 2 hours": Fleet(preempted_every_s=2 * HOUR_S),
    "all of these": replace(SLOW, death_every_s=24 * HOUR_S, preempted_every_s=2 * HOUR_S),
}
FINER_ROWS = 512
MANY_BLOCKS = 10**5
"""Of more, one seed is enough: chance evens out."""
COLUMNS = [
    "cache", "row blocks", "what happens", "formula, h", "simulated, h", "formula / simulated", "deaths",
    "pre-emptions", "taken over", "computed in vain",
]  # fmt: skip
NOTES = f"""
1,000 builders of one GPU, median of {SEEDS} seeds (one for the billion images). A builder that dies is
replaced after five minutes, one that is pre-empted comes back after ten; both take two minutes to
begin. Row blocks of the dead are free after {TAKEOVER_S:.0f} s (expiry of the lease and watching it),
those of the pre-empted at once; a builder without work looks every {POLL_S:.0f} s. Committed tiles
stay, so that a death costs at most a tile: "computed in vain" is of all the work. The formula is within
{TOLERANCE:.0%} where there are {ENOUGH_BLOCKS} row blocks or more for a builder; with fewer it is what
the unluckiest block takes. ImageNet-1k has 313 row blocks of 4,096 rows, so that 687 of 1,000 builders
find nothing to do: the line with `--tile-rows {FINER_ROWS}` has work for all.
"""


def main() -> None:
    """Simulate, print and keep the table and the picture."""
    lines = list(_lines())
    write_results("fleet_builds", "A thousand builders on leases", COLUMNS, lines, NOTES)
    _draw(lines)


def caches() -> list[Work]:
    """The pictures of the plan, and the first ones in finer tiles too."""
    planned = works(Measured.read())
    finer = replace(planned[0], name=f"{planned[0].name}, --tile-rows {FINER_ROWS}", tile_rows=FINER_ROWS)
    return [planned[0], finer, *planned[1:3]]


def _lines() -> Iterator[list[object]]:
    measured = Measured.read()
    for work in caches():
        job = work.job(measured, Assumed())
        seeds = range(1 if job.blocks > MANY_BLOCKS else SEEDS)
        for what, fleet in FLEETS.items():
            outcomes = [simulated(job, fleet, seed) for seed in seeds]
            middle = _median(outcomes)
            formula_s = expected(job, fleet)
            yield [
                work.name, job.blocks, what, formula_s / HOUR_S, middle.seconds / HOUR_S,
                formula_s / middle.seconds, middle.deaths, middle.preemptions, middle.takeovers,
                f"{middle.lost_s / (job.blocks * job.block_s):.2%}",
            ]  # fmt: skip


def _median(outcomes: list[Outcome]) -> Outcome:
    middle = statistics.median_low(outcome.seconds for outcome in outcomes)
    return next(outcome for outcome in outcomes if outcome.seconds == middle)


def _draw(lines: list[list[object]]) -> None:
    names = list(dict.fromkeys(str(line[0]) for line in lines))
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3.4), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        of_cache = [line for line in lines if line[0] == name]
        places = range(len(of_cache))
        axis.barh(places, [line[4] for line in of_cache], color="#6a9fb5", label="simulated")
        axis.plot([line[3] for line in of_cache], places, "k|", markersize=14, label="formula")
        axis.set_title(name, fontsize=8)
        axis.set_xlabel("hours")
        axis.set_yticks(places, [str(line[2]) for line in of_cache], fontsize=8)
        axis.invert_yaxis()
    axes[0].legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(RESULTS / "fleet_builds.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
