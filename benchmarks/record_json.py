"""Decoded JSON of 256 records: written column by column, against decoding and encoding them one by one.

python -m benchmarks record_json
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import alternate, write_results
from logit_server.decoded import DecodedRecord, decode_records
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from tests.caches import synthetic_logits, write_synthetic_cache

RECORDS, ROUNDS = 256, 15


def main() -> None:
    """Measure, print and keep the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.zarr"
        write_synthetic_cache(path, synthetic_logits(1, RECORDS, 1000), sketch=True)
        (served,) = open_catalog(Settings(caches=(str(path),)))
        rows, records = np.arange(RECORDS), served.cache.read_page(0)
        written = served.record_json.written

        def one_by_one() -> bytes:
            found = [decode_records(served, 0, rows[at : at + 1], records[at : at + 1])[0] for at in rows]
            return b",".join(DecodedRecord.model_validate(one).model_dump_json().encode() for one in found)

        assert json.loads(b"[%b]" % written(0, rows, records)) == json.loads(b"[%b]" % one_by_one())
        measured = alternate(
            {
                "columns": lambda: _seconds(lambda: written(0, rows, records)),
                "models": lambda: _seconds(one_by_one),
            },
            ROUNDS,
        )
    ours, models = (statistics.median(measured[name]) for name in ("columns", "models"))
    write_results(
        "record_json",
        "Decoded JSON of 256 records",
        ["by", "processor, ms", "ratio"],
        [
            ["columns (the server)", 1e3 * ours, 1.0],
            ["decoded, modelled and encoded one by one", 1e3 * models, models / ours],
        ],
        f"Processor time, median of {ROUNDS} rounds in turn; 1,000 classes, records of the tests' codec.",
    )


def _seconds(call: Callable[[], bytes]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    main()
