from __future__ import annotations

import sys

import numpy as np
import pytest
import xxhash
from sklearn.datasets import load_digits

from cache_builder.datasets import open_source
from cache_builder.format.errors import ConfigError, DataError


def test_parts_divide_the_whole() -> None:
    whole, train, test = (open_source(spec) for spec in ("digits", "digits:train", "digits:test"))
    assert [*train.ids, *test.ids] == list(whole.ids)
    assert len(set(whole.ids)) == len(whole) == 1797
    assert (len(train), len(test)) == (1197, 600)
    assert train.labels is not None
    assert test.labels is not None
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), load_digits().target)
    assert whole.class_names == tuple("0123456789")


def test_pixels_are_scikit_learns_scaled_to_bytes() -> None:
    source = open_source("digits:test")
    sample = source.read(7)
    expected = np.rint(load_digits().images[1197 + 7] * 255 / 16)
    np.testing.assert_array_equal(sample.value.numpy(), np.stack([expected] * 3))
    assert source.ids[7] == "1204"


def test_digest_names_the_pixels() -> None:
    source = open_source("digits")
    pixels = np.ascontiguousarray(source.read(5).value.permute(1, 2, 0).numpy())
    assert source.read(5).digest == xxhash.xxh64_intdigest(pixels.data)
    assert len({source.read(row).digest for row in range(100)}) == 100


def test_unknown_part() -> None:
    with pytest.raises(DataError, match="'train' and 'test', not 'valid'"):
        open_source("digits:valid")


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"^digits:test needs scikit-learn: pip install 'kdcache\[demo\]'$"):
        open_source("digits:test")
