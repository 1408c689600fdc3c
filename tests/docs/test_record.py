"""The README's record, and its picture, are those of the cache that FORMAT.md works through."""

from __future__ import annotations

import re
import runpy

from tests.format.test_example import LOGITS, RECORD, SECTION
from tests.test_readme import README, ROOT

SCRIPT = runpy.run_path(str(ROOT / "docs/record.py"))
SHOWN = README[README.index("## What a record is") : README.index("This is the simplest of the codecs")]


def test_the_picture_is_what_the_script_draws() -> None:
    assert (ROOT / "docs/record.svg").read_text(encoding="utf-8") == SCRIPT["picture"]()


def test_the_bytes_of_the_readme_are_those_of_the_record() -> None:
    rows = re.findall(r"^\| `([0-9a-f ]+)` \| `(\w+)` \|", SHOWN, re.MULTILINE)
    fields = SCRIPT["example"]().fields
    assert [(name, bytes.fromhex(shown)) for shown, name in rows] == [
        (name, column.tobytes()) for name, column in fields.items()
    ]
    assert "".join(shown for shown, _ in rows).replace(" ", "") == RECORD.replace(" ", "")


def test_the_logits_of_the_readme_are_those_of_format_md() -> None:
    teacher = ", ".join(f"{logit:g}" for logit in SCRIPT["TEACHER"])
    assert f"The teacher had said {teacher}." in SECTION
    assert f"answered {teacher}:" in SHOWN
    assert f"So {', '.join(LOGITS.split())} comes back" in SHOWN


def test_what_the_picture_says_of_numbers_the_readme_says_too() -> None:
    residual = next(line for line in SCRIPT["lines"](SCRIPT["example"]()) if line.name == "topk_residual")
    assert residual.says in SHOWN.replace("\n", " ")
    assert residual.more in SHOWN
