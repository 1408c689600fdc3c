"""An index of commits that was lost is made anew without teacher or data, and only where that is certain."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache_builder.cli.app import app
from cache_builder.format import CorruptCacheError
from cache_builder.format.commits import INDEX_KEY
from cache_builder.format.reader import open_cache
from cache_builder.verify.repair import remake_index
from tests.cache_builder.verify.test_run import synthetic
from tests.format.damage import contents


@pytest.mark.parametrize("data", [None, b"{", b'{"commits":[]}'])
def test_a_lost_index_is_made_anew(tmp_path: Path, data: bytes | None) -> None:
    cache = synthetic(tmp_path)
    before, index = contents(cache), (cache / INDEX_KEY).read_bytes()
    (cache / INDEX_KEY).unlink() if data is None else (cache / INDEX_KEY).write_bytes(data)
    with pytest.raises(CorruptCacheError, match="`kdcache verify CACHE` with --repair"):
        open_cache(cache)
    ran = CliRunner().invoke(app, ["verify", str(cache), "--repair"])
    assert (ran.exit_code, ran.output.splitlines()[0]) == (
        0, "the index of the commits was missing or damaged: it was made anew",
    )  # fmt: skip
    assert contents(cache) == before
    assert (cache / INDEX_KEY).read_bytes() == index


def test_a_whole_one_is_left_alone(tmp_path: Path) -> None:
    cache = synthetic(tmp_path)
    written = (cache / INDEX_KEY).stat().st_mtime_ns
    assert remake_index(str(cache)) == "the index of the commits is whole: nothing was written"
    assert (cache / INDEX_KEY).stat().st_mtime_ns == written


def test_commits_that_do_not_give_the_cache_id_make_none(tmp_path: Path) -> None:
    cache = synthetic(tmp_path)
    (cache / INDEX_KEY).unlink()
    next((cache / "commits").glob("g*.json")).unlink()
    with pytest.raises(CorruptCacheError, match="do not give cache_id"):
        remake_index(str(cache))
    assert not (cache / INDEX_KEY).exists()
