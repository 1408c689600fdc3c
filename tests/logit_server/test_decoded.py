from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from cache_builder.format import Cache
from logit_server.decoded import DecodedRecord, decode_records, json_of
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from tests.logit_server.odd_cache import CLASSES, INVALID_ROW


def decoded_records(*arguments: Any) -> list[DecodedRecord]:
    return [DecodedRecord.model_validate(record) for record in decode_records(*arguments)]


def test_decoded_logits_are_those_of_the_local_reader(cache_path: Path, cache: Cache) -> None:
    (served,) = open_catalog(Settings(caches=(str(cache_path),)))
    rows = np.array([7, 0, 99])
    records = cache.read_page(2)[rows]
    dense = cache.decode(records)
    lse = cache.stored(records).lse
    for i, decoded in enumerate(decoded_records(served, 2, rows, records)):
        assert [decoded.row, decoded.view, decoded.label] == [rows[i], 2, rows[i] % 40]
        assert decoded.sample_id == cache.ids[rows[i]]
        assert decoded.label_name == f"class {rows[i] % 40}"
        for stored in decoded.top:
            assert stored.logit == pytest.approx(dense[i, stored.class_id], abs=1e-5)
            assert stored.name == f"class {stored.class_id}"
            assert stored.probability == pytest.approx(np.exp(stored.logit - lse[i]), rel=1e-6)
        assert [stored.logit for stored in decoded.top] == sorted(
            (s.logit for s in decoded.top), reverse=True
        )
        assert decoded.tail_mass == pytest.approx(1 - sum(s.probability for s in decoded.top), abs=1e-6)


def test_a_sample_that_could_not_be_read_says_so(odd_path: Path) -> None:
    (served,) = open_catalog(Settings(caches=(str(odd_path),)))
    rows = np.array([INVALID_ROW])
    (decoded,) = decoded_records(served, 0, rows, served.cache.read_page(0)[rows])
    assert not decoded.valid
    assert (decoded.top, decoded.lse, decoded.tail_mass) == ([], None, None)


def test_without_labels_and_names_there_are_none(odd_path: Path) -> None:
    (served,) = open_catalog(Settings(caches=(str(odd_path),)))
    rows = np.array([0])
    (decoded,) = decoded_records(served, 0, rows, served.cache.read_page(0)[rows])
    assert (decoded.label, decoded.label_name) == (None, None)
    assert {stored.name for stored in decoded.top} == {None}
    assert len(decoded.top) == CLASSES
    assert 0 <= (decoded.tail_mass or 0) < 0.02


def test_json_says_of_every_record_what_it_says_of_it_alone(odd_path: Path) -> None:
    (served,) = open_catalog(Settings(caches=(str(odd_path),)))
    rows = np.array([0, INVALID_ROW, 1, 0])
    records = served.cache.read_page(0)[rows]
    together = orjson.loads(json_of(served, 0, rows, records))["records"]
    assert [record["valid"] for record in together] == [True, False, True, True]
    for place in range(len(rows)):
        one = slice(place, place + 1)
        assert decode_records(served, 0, rows[one], records[one]) == [together[place]]
        assert DecodedRecord.model_validate(together[place]).model_dump() == together[place]


@pytest.mark.parametrize("top", [1, 2])
def test_fewer_classes_are_the_first_of_all(cache_path: Path, top: int) -> None:
    (served,) = open_catalog(Settings(caches=(str(cache_path),)))
    rows = np.array([3, 4])
    records = served.cache.read_page(0)[rows]
    for few, whole in zip(
        decode_records(served, 0, rows, records, top), decode_records(served, 0, rows, records), strict=True
    ):
        assert few.pop("top") == whole.pop("top")[:top]
        assert few == whole


def test_no_records_are_an_empty_list(cache_path: Path) -> None:
    (served,) = open_catalog(Settings(caches=(str(cache_path),)))
    none = np.empty((0, served.record_bytes), np.uint8)
    assert orjson.loads(json_of(served, 0, np.empty(0, np.int64), none))["records"] == []
