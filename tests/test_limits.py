"""How long a test may take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import SLOW_LIMIT_S

_COLLECT = """
import json, pytest, sys

class Tells:
    def pytest_collection_finish(self, session):
        limits = [item.get_closest_marker("timeout") for item in session.items]
        print("limits", json.dumps([limit and limit.args[0] for limit in limits]))

pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-m", sys.argv[1], sys.argv[2]], [Tells()])
"""


def limits(marked: str, file: str) -> list[float | None]:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", _COLLECT, marked, file], cwd=root, capture_output=True, text=True, check=True
    )
    told = next(line for line in done.stdout.splitlines() if line.startswith("limits"))
    return list(json.loads(told.removeprefix("limits")))


def test_only_slow_tests_have_the_long_limit() -> None:
    slow, fast = (
        limits("slow", "tests/format/test_damage.py"),
        limits("not slow", "tests/format/test_damage.py"),
    )
    assert slow
    assert set(slow) == {SLOW_LIMIT_S}
    assert fast
    assert set(fast) == {None}
