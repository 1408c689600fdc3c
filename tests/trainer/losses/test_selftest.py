from __future__ import annotations

import pytest

from tests.trainer.losses import write_selftest
from trainer.losses import LOSSES, selftest


def test_this_machine_computes_what_is_kept():
    verdicts = list(selftest.selftest())
    assert len(verdicts) == 2 * len(LOSSES)
    assert [verdict.measured.name for verdict in verdicts if not verdict.is_right] == []


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_kept_is_the_independent_evaluation(name):
    kept = {(row.name, row.classes): row for row in selftest.read_golden()}
    found = selftest.Kept(*write_selftest.kept(name, 100))
    assert found.value == pytest.approx(kept[name, 100].value, rel=1e-10)
    assert found.slope == pytest.approx(kept[name, 100].slope, rel=1e-6, abs=1e-10)


def test_a_wrong_number_is_noticed():
    measured = selftest.measure("kd", 100)
    right = selftest.Kept("kd", 100, measured.value, measured.slope)
    assert selftest.Verdict(measured, right).is_right
    assert not selftest.Verdict(measured, right._replace(value=measured.value * (1 + 1e-8))).is_right
    assert not selftest.Verdict(measured, right._replace(slope=measured.slope * (1 + 1e-4))).is_right
    assert not selftest.Verdict(measured, None).is_right
