"""What holds for both records: the manifest's section decides, wrong bytes are refused."""

from __future__ import annotations

import numpy as np
import pytest

from cache_builder.format import DataError, FormatError
from cache_builder.format.codecs import Codec
from cache_builder.format.codecs.class_sketch import ClassSketchSettings
from cache_builder.format.codecs.sketched import index_bits
from cache_builder.format.codecs.topk_tail import TopkTailSettings
from tests.caches import bound, fit_basis, no_tail, synthetic_logits, with_centres

LOGITS = synthetic_logits(1, 60, 40)[0]
BASIS = with_centres(fit_basis(LOGITS, 8), LOGITS, 0.6)
TAIL = TopkTailSettings(top_k=5, index_bits=8, tail_rank=8, tail_wide=2, tail_step=0.2)
SKETCH = ClassSketchSettings(
    top_k=5,
    index_bits=8,
    value_bits=8,
    value_step=0.05,
    tail_rank=8,
    tail_wide=5,
    tail_bytes=1,
    tail_step=0.6,
)
both = pytest.mark.parametrize("section", [TAIL, SKETCH], ids=["topk-tail", "class-sketch"])


@both
def test_pack_and_unpack_are_inverse(section: Codec) -> None:
    fields = bound(section, BASIS).encode(LOGITS)
    again = section.layout.unpack(section.layout.pack(fields))
    assert fields.keys() == again.keys()
    for name, column in fields.items():
        np.testing.assert_array_equal(column, again[name])


@both
def test_near_the_live_logits(section: Codec) -> None:
    decoded = bound(section, BASIS).decode(bound(section, BASIS).encode(LOGITS))
    assert np.sqrt(np.square(decoded - LOGITS).mean()) < 0.4
    np.testing.assert_array_equal(decoded.argmax(axis=1), LOGITS.argmax(axis=1))


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(section: Codec, bad: float) -> None:
    logits = LOGITS.copy()
    logits[3, 7] = bad
    with pytest.raises(DataError, match="non-finite"):
        bound(section, BASIS).encode(logits)


@both
@pytest.mark.parametrize("cut", ["shorter", "longer", "signed", "flat"])
def test_records_of_another_shape_are_refused(section: Codec, cut: str) -> None:
    packed = section.layout.pack(bound(section, BASIS).encode(LOGITS))
    wrong = {
        "shorter": packed[:, :-1],
        "longer": np.pad(packed, ((0, 0), (0, 1))),
        "signed": packed.view(np.int8),
        "flat": packed.reshape(-1),
    }[cut]
    with pytest.raises(FormatError, match=r"expected records uint8 \[n, \d+\]"):
        bound(section, BASIS).decode(section.layout.unpack(wrong))


@both
def test_a_class_that_is_not_there_is_refused(section: Codec) -> None:
    fields = bound(section, BASIS).encode(LOGITS)
    fields["topk_index"][0, 1] = 40
    with pytest.raises(FormatError, match="names class 40 of 40: it is of another cache"):
        bound(section, BASIS).decode(fields)


@both
def test_no_records(section: Codec) -> None:
    fields = bound(section, BASIS).encode(LOGITS[:0])
    assert bound(section, BASIS).decode(fields).shape == (0, 40)


def test_every_class_of_few_needs_no_tail() -> None:
    exact = TopkTailSettings(top_k=40, index_bits=index_bits(40), tail_rank=0, tail_wide=0, tail_step=0.0)
    fields = bound(exact, no_tail(40)).encode(LOGITS)
    stored = bound(exact, no_tail(40)).stored(fields)
    np.testing.assert_allclose(np.exp(stored.values - stored.lse[:, None]).sum(axis=1), 1, rtol=0.02)
