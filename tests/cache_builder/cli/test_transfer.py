"""The commands as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cache_builder.cli.app import app
from cache_builder.format.reader import open_cache
from tests.caches import synthetic_logits, write_synthetic_cache

RUNNER = CliRunner()


@pytest.mark.parametrize("command", ["verify", "export", "import", "merge", "extend"])
def test_help_teaches(command: str) -> None:
    ran = RUNNER.invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert ran.exit_code == 0
    assert "Example" in ran.stdout
    assert f"kdcache {command} " in ran.stdout


def test_verify_export_import(tmp_path: Path) -> None:
    cache, out = tmp_path / "c.zarr", tmp_path / "o.zarr"
    write_synthetic_cache(cache, synthetic_logits(2, 50, 40))
    ran = RUNNER.invoke(app, ["verify", str(cache), "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["ok"] is True
    ran = RUNNER.invoke(
        app, ["export", str(cache), "--format", "parquet", "--out", str(tmp_path / "c.parquet")]
    )
    assert ran.exit_code == 0, ran.output
    again = RUNNER.invoke(
        app, ["export", str(cache), "--format", "parquet", "--out", str(tmp_path / "c.parquet")]
    )
    assert (again.exit_code, "overwrite it with --force" in again.output) == (2, True)
    source = str(tmp_path / "c.parquet")
    ran = RUNNER.invoke(
        app, ["import", source, "--format", "topk-parquet", "--classes", "40", "--out", str(out)]
    )
    assert ran.exit_code == 0, ran.output
    assert list(open_cache(out).ids) == list(open_cache(cache).ids)
    shard = next(path for path in (cache / "records/logits").glob("*/c/**/*") if path.is_file())
    shard.unlink()
    ran = RUNNER.invoke(app, ["verify", str(cache)])
    assert (ran.exit_code, "FAILED  shards" in ran.output) == (3, True)


def test_import_of_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", synthetic_logits(1, 20, 12)[0])
    arguments = ["import", str(tmp_path / "l.npy"), "--format", "dense", "--out", str(tmp_path / "o.zarr")]
    wrong = RUNNER.invoke(app, [*arguments, "--values", "odds"])
    assert (
        wrong.exit_code,
        "--values odds: Input should be 'logits', 'logprobs' or 'probs'" in wrong.output,
    ) == (
        2,
        True,
    )
    ran = RUNNER.invoke(app, [*arguments, "--teacher", "my teacher", "--name", "mine"])
    assert ran.exit_code == 0, ran.output
    manifest = open_cache(tmp_path / "o.zarr").manifest
    assert (manifest.teacher.spec, manifest.name, manifest.codec.top_k) == ("my teacher", "mine", 12)


def test_merge_and_extend_refuse_in_a_sentence(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(2, 50, 40))
    one = str(tmp_path / "c.zarr")
    ran = RUNNER.invoke(app, ["merge", one, "--out", str(tmp_path / "o.zarr")])
    assert (ran.exit_code, "two parts or more" in ran.output) == (2, True)
    ran = RUNNER.invoke(app, ["extend", one, "--views", "1"])
    assert (ran.exit_code, "has 2 already" in ran.output) == (2, True)
    ran = RUNNER.invoke(app, ["extend", str(tmp_path / "none.zarr"), "--views", "1"])
    assert (ran.exit_code, "there is no cache here" in ran.output) == (1, True)
