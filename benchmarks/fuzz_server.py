"""Requests that schemathesis makes up from the served OpenAPI document: is every answer as the document says?

Two passes against a server on loopback with a token: what comes of the document alone, right and wrong, and
right requests for what exists. Bounded in time; nothing here is a measurement of speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.report import write_results
from logit_server.run import serving
from logit_server.settings import Settings
from tests.caches import synthetic_logits, write_synthetic_cache

SECONDS = 100
"""Of each pass."""
TOKEN = "fuzzed"
PLACES_VARIABLE, COUNTS_VARIABLE = "FUZZ_PLACES", "FUZZ_COUNTS"
"""What ``benchmarks.fuzz.hooks`` reads."""
PASSES = {"all": "right and wrong requests", "positive": "right requests, mostly for what exists"}

# A view, a row or a range may be out of a cache's range, which no document says.
_CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "404", "406", "413", "416", "422"]
"""


def main() -> None:
    """Both passes, and their summary."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzzed.zarr"
        write_synthetic_cache(path, synthetic_logits(views=3, rows=100, classes=40), sketch=True)
        with serving(Settings.checked(caches=(str(path),), port=0, token=TOKEN, max_ids=5000)) as base:
            rows = [_row(base, mode, about, Path(folder)) for mode, about in PASSES.items()]
    columns = ["requests", "answers", "by status", "5xx", "checks failed", "errors of the tool"]
    write_results(
        "fuzz_server",
        "schemathesis against the logit server",
        columns,
        rows,
        f"Made from the served /openapi.json by schemathesis, {SECONDS} s a pass, all of its checks: "
        "statuses, media types, headers and bodies as documented, methods that are not, authentication that "
        "is missing or wrong, wrong data refused. A right request may be refused with 404, 406, 413, 416 or "
        "422, because what a cache holds is in no document.",
    )
    if any(row[3] or row[4] for row in rows):
        sys.exit(1)


def _row(base: str, mode: str, about: str, folder: Path) -> list[object]:
    report, counts = _run(base, mode, folder)
    by_status = ", ".join(f"{status}: {counts[status]:,}" for status in sorted(counts))
    failed = {failure["title"]: failure["count"] for failure in report["failures"]}
    for failure in report["failures"]:
        print(json.dumps(failure), file=sys.stderr)
    server_errors = sum(count for status, count in counts.items() if status.startswith("5"))
    return [
        f"{about} ({report['test_cases']['generated']:,} cases)",
        sum(counts.values()),
        by_status,
        server_errors,
        sum(failed.values()),
        sum(error["count"] for error in report["errors"]),
    ]


def _run(base: str, mode: str, folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The report of one pass, and how many answers had which status."""
    report, counts, config = folder / f"{mode}.json", folder / f"{mode}-counts.json", folder / "config.toml"
    config.write_text(_CONFIG)
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "benchmarks.fuzz.hooks", COUNTS_VARIABLE: str(counts)}
    if mode == "positive":
        environment[PLACES_VARIABLE] = json.dumps(_places(base))
    command = [
        sys.executable, "-m", "schemathesis.cli", f"--config-file={config}", "run", f"{base}/openapi.json",
        "-H", f"Authorization: Bearer {TOKEN}", "--mode", mode, "--phases", "coverage,fuzzing",
        "--continue-on-failure", "--max-time", str(SECONDS), "--seed", "1",
        "--report", "json", "--report-json-path", str(report), "--request-timeout", "60",
    ]  # fmt: skip
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10 * SECONDS)
    if not report.exists():
        raise SystemExit(ran.stdout + ran.stderr)
    print(ran.stdout, file=sys.stderr)
    return json.loads(report.read_text()), json.loads(counts.read_text())


def _places(base: str) -> dict[str, list[str]]:
    with httpx2.Client(base_url=base, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        (cache,) = client.get("/v1/caches").json()["caches"]
        manifest = client.get(f"/v1/caches/{cache['name']}").json()
        lines = client.get(f"/v1/caches/{cache['name']}/ids").text.splitlines()
    ids = [json.loads(line)["id"] for line in lines[:20]]
    arrays = list(manifest["digests"])
    return {
        "name": [cache["name"], cache["cache_id"]],
        "sample_id": ids,
        "id": ids,
        "path": arrays,
        "key": ["zarr.json", *(f"{array}/zarr.json" for array in arrays)],
        "view": ["0", "1", "2"],
        "start": ["0", "5"],
        "stop": ["9", "100"],
        "top": ["1", "3"],
    }


if __name__ == "__main__":
    main()
