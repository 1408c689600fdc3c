"""The error tree: what scripts and worker processes rely on."""

from __future__ import annotations

import pickle

import pytest

from cache_builder.format import errors


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.ConfigError, 2),
        (errors.DataError, 1),
        (errors.FormatError, 1),
        (errors.IncompleteCacheError, 1),
        (errors.CorruptCacheError, 1),
        (errors.ServerError, 1),
    ],
)
def test_every_error_is_one_of_ours(kind: type[errors.KDCacheError], exit_code: int) -> None:
    assert issubclass(kind, errors.KDCacheError)
    assert kind("what happened").exit_code == exit_code


def test_unknown_ids_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(errors.UnknownSampleError(["a", "b"], 7)))
    assert (error.sample_ids, error.total) == (["a", "b"], 7)
    assert "7 sample id(s)" in str(error)
