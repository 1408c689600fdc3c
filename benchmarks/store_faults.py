"""Each fault of an object store before each command: how the command ends, in words."""

from __future__ import annotations

from benchmarks.report import write_results
from tests.store_faults import ALL_FAULTS, COMMANDS, HARMLESS, Ending, bench

NOTES = """
Commands in process against moto's S3 server behind a proxy that spoils every answer in one way
(`tests/faulty_proxy.py`), with half a second of patience (`KDCACHE_STORE_PATIENCE_S`). "Sentence": refused
with one that names the store, the cause and what to do; "done": the command did its work; "traceback" and
"blames the data" are faults of ours, and there must be none. The last column is what `inspect` says.
"""


def main() -> None:
    """Run every pair, print and keep the table."""
    with bench() as store:
        endings = {
            fault: {command: store.end_of(command, fault) for command in COMMANDS} for fault in ALL_FAULTS
        }
    rows = [
        [fault, *(_word(of[command], fault) for command in COMMANDS), of["inspect"].last_line[:300]]
        for fault, of in endings.items()
    ]
    columns = ["fault", *COMMANDS, "what inspect says"]
    write_results("store_faults", "Faults of an object store", columns, rows, NOTES)


def _word(ending: Ending, fault: str) -> str:
    if ending.traceback:
        return "traceback"
    if ending.blames_data:
        return "blames the data"
    if ending.code == 0:
        return "done" if fault in HARMLESS else "done?"
    return "sentence" if ending.is_sentence else "no sentence"


if __name__ == "__main__":
    main()
