"""`kdcache verify` of samples that have several positions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache_builder.cli.app import app
from tests.format.position_caches import COUNTS_OF_ROWS
from tests.format.test_golden import GOLDEN

COUNTS = {"grid": (6,) * 5, "ragged": COUNTS_OF_ROWS}


@pytest.mark.parametrize("kind", COUNTS)
def test_every_record_of_every_position_is_decoded(kind: str) -> None:
    ended = CliRunner().invoke(app, ["verify", str(GOLDEN / f"v3/{kind}.zarr")])
    said = " ".join(ended.output.split())
    assert ended.exit_code == 0, said
    assert f"{kind}: " + ("6" if kind == "grid" else "0 to 4") in said
    assert f"{sum(COUNTS[kind])} in a view" in said
    assert f"{3 * sum(COUNTS[kind])} decode to finite logits" in said


def test_a_damaged_shard_is_found(tmp_path: Path) -> None:
    cache = shutil.copytree(GOLDEN / "v3/ragged.zarr", tmp_path / "c.zarr")
    shard = next(path for path in sorted(cache.glob("records/logits/*/c/1/*")) if path.is_file())
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    ended = CliRunner().invoke(app, ["verify", str(cache), "--json"])
    assert ended.exit_code == 3
    failed = {check["name"] for check in json.loads(ended.stdout)["checks"] if check["outcome"] == "damaged"}
    assert failed == {"shards"}
