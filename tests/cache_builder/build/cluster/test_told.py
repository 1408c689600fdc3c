"""What actors have to say reaches the driver's progress once."""

from __future__ import annotations

import io

from rich.console import Console

from cache_builder.build.cluster.told import Relay, Told
from cache_builder.console.progress import BuildProgress, BuildStats


def test_lines_and_phases_are_shown_where_the_driver_is() -> None:
    told, shown = Told(), io.StringIO()
    with BuildProgress(Console(file=shown, width=200)) as progress:
        relay = Relay(progress)
        relay.show(told.take())  # before anything was said
        told.say("pictures: 224 px")
        told.start("calibrating", 10, unit="pairs")
        told.update(4)
        relay.show(told.take())
        relay.show(told.take())
        told.update(10, "held out: 5")
        relay.show(told.take())
    lines = shown.getvalue().splitlines()
    assert lines[:2] == ["pictures: 224 px", "calibrating: 0 of 10 pairs"]
    assert lines[2].startswith("calibrating: 10 of 10")
    assert "held out: 5" in lines[2]


def test_counters_of_several_processes_are_added() -> None:
    one, two = BuildStats(done=3, labelled=2, top1_hits=1), BuildStats(done=4, invalid=1)
    assert BuildStats.sum([one, two]) == BuildStats(done=7, labelled=2, top1_hits=1, invalid=1)
    assert BuildStats.sum([]) == BuildStats()
