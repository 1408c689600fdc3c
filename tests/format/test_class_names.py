"""Names of classes as arrays: what was written is read, and names that nobody gave take no array."""

from __future__ import annotations

import pytest

from cache_builder.format import open_cache
from cache_builder.format.class_names import NAMES, NO_NAMES, OWN_NAMES, ClassNames
from tests.format.conftest import Written


@pytest.mark.parametrize("names", [("a",), ("tench", "Grauer Wal", "狗", ""), tuple(map(str, range(1000)))])
def test_names_are_read_from_their_arrays(tail_cache: Written, names: tuple[str, ...]) -> None:
    manifest = open_cache(tail_cache.path).manifest
    named = manifest.logits.model_copy(update={"named": True})
    manifest = manifest.model_copy(update={"outputs": {**manifest.outputs, "logits": named}})
    arrays = ClassNames(names).arrays()
    assert set(arrays) == {f"{NAMES}_bytes", f"{NAMES}_offsets"}
    assert ClassNames.read(manifest, {}, arrays.__getitem__) == ClassNames(names)


def test_own_names_have_arrays_of_their_own() -> None:
    both = ClassNames(("cat", "dog"), ("good", "bad"))
    assert {path.rpartition("_")[0] for path in both.arrays()} == {NAMES, OWN_NAMES}


def test_nobody_named_them() -> None:
    assert NO_NAMES.arrays() == {}
