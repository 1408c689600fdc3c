from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.replicas import measure


@pytest.mark.slow
def test_a_run_does_not_notice_that_a_replica_is_killed(tmp_path: Path) -> None:
    found = measure(tmp_path, epochs=6, kills=1)
    assert found.exit_code == 0
    assert found.differing == []
    assert found.checked > 0
    assert found.wrong == 0
    assert all(answers > 0 for answers in found.answered)
    assert found.refused + found.cut > 0
