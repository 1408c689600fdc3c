"""FORMAT.md is enough: code that knows nothing of kdcache decodes the same logits."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from cache_builder.format import open_cache
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.format import third_party_reader
from tests.format.conftest import Written
from tests.format.joint import fitted, masked_codec, write_joint_cache


@pytest.mark.parametrize("cache", ["tail_cache", "sketch_cache", "exact_cache"])
def test_it_decodes_the_same_logits(cache: str, request: pytest.FixtureRequest) -> None:
    written: Written = request.getfixturevalue(cache)
    ours = open_cache(written.path)
    for view in range(len(written.logits)):
        theirs = third_party_reader.read_logits(written.path, view)
        assert theirs.dtype == np.float32
        np.testing.assert_allclose(theirs, ours.decode(ours.read_page(view)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("is_masked", [False, True])
def test_it_decodes_what_views_share(tmp_path: Path, is_masked: bool) -> None:
    """Blocks of several lanes, with escapes, lower bits, and one that is stored as it is."""
    logits = synthetic_logits(3, 40, 40, seed=4)
    logits[:, ::9] *= 30
    codec = masked_codec() if is_masked else fitted(logits[:, 1::2])
    if is_masked:
        logits[..., [3, 17]], logits[0, 5, 6] = -np.inf, -1e9
    write_joint_cache(tmp_path / "c.zarr", logits, codec=codec, invalid=(7,), tile_views=2, tile_rows=19)
    ours = open_cache(tmp_path / "c.zarr")
    for view in range(3):
        theirs = third_party_reader.read_logits(tmp_path / "c.zarr", view)
        np.testing.assert_array_equal(theirs, ours.decode(ours.read_page(view)))


def test_it_notices_a_cache_that_is_not_complete(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(3, 40, 40), commit=3)
    with pytest.raises(FileNotFoundError, match="commits/index"):
        third_party_reader.read_logits(tmp_path / "c.zarr", 0)


def test_it_notices_an_edit_and_a_shard_that_is_gone(tail_cache: Written) -> None:
    root = tail_cache.path / "zarr.json"
    text = root.read_text()
    root.write_text(text.replace('"tail_step": 0.2', '"tail_step": 0.3'))
    with pytest.raises(AssertionError):
        third_party_reader.read_logits(tail_cache.path, 0)
    root.write_text(text)
    (tail_cache.path / "records/logits/lse/c/1/1").unlink()
    with pytest.raises(FileNotFoundError):
        third_party_reader.read_logits(tail_cache.path, 0)


def test_it_is_short_and_knows_nothing_of_kdcache() -> None:
    source = Path(third_party_reader.__file__).read_text()
    lines = [
        line for line in source.splitlines() if line.strip() and not line.strip().startswith(('"""', "#"))
    ]
    assert len(lines) <= 145
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {"hashlib", "json", "pathlib", "numpy", "zarr"}
