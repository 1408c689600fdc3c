"""A node that sees another data set, or not the output, takes no part."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from cache_builder.build.cluster.seen import Witness, held_output
from cache_builder.datasets import ImageFolder, open_source
from cache_builder.format.errors import ConfigError
from tests.cache_builder.command import ROOT

HOLD = """
import sys, time
from cache_builder.format.locks.lock import claimed
with claimed(sys.argv[1], "ray one") as hold:
    hold.ready()
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_node_without_the_pictures(own_photos: Path) -> None:
    source = ImageFolder(str(own_photos))
    witness = Witness.of(source)
    assert witness is not None
    witness.check(source)
    own_photos.rename(own_photos.with_name("elsewhere"))
    with pytest.raises(ConfigError, match=r"node \S+ does not see the data set .* object store"):
        witness.check(source)


def test_a_node_with_other_pictures() -> None:
    source = open_source("digits:train")
    witness = Witness.of(source)
    assert witness is not None
    with pytest.raises(ConfigError, match="reads other bytes than the driver for sample '0'"):
        dataclasses.replace(witness, digest=1).check(source)


def test_the_first_readable_sample_is_the_witness(own_photos: Path) -> None:
    for path in sorted(own_photos.rglob("*.jpg"))[:3]:
        path.write_bytes(b"no picture")
    source = ImageFolder(str(own_photos))
    witness = Witness.of(source)
    assert witness is not None
    assert witness.row > 0
    for path in own_photos.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    assert Witness.of(source) is None


def test_a_node_that_does_not_see_the_output(tmp_path: Path) -> None:
    out = str(tmp_path / "cache.zarr")
    with pytest.raises(
        ConfigError, match=r"node \S+ does not see that the driver holds .*folder that all nodes"
    ):
        held_output(out, "ray one")
    with subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE, cwd=ROOT) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        held_output(out, "ray one").check()
        with pytest.raises(ConfigError, match="does not see"):
            held_output(out, "ray two")
        driver.kill()
