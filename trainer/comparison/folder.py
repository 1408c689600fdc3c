"""The folder that keeps a comparison, and who works in it.

compare.json   what is compared                  runs/METHOD/seed-N/   a folder of kdtrain each
logs/          what each run said                compare.md, compare.csv, compare.png, results.json
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache_builder.format import ConfigError
from trainer.run.run_folder import DRIFT

PLAN, LOGS, RUNS = "compare.json", "logs", "runs"
_LOCK = ".lock"


def check_output(out: Path) -> None:
    """Before any work: raise :class:`ConfigError` where something else is in the way, or somebody at work."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: choose another --out")
    ours = {_LOCK, DRIFT}
    if out.exists() and not (out / PLAN).exists() and any(item.name not in ours for item in out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no comparison: choose another --out")
    if (out / _LOCK).exists():
        with claimed(out):
            pass


@contextmanager
def claimed(out: Path) -> Iterator[int]:
    """The folder for this command alone; yields the lock's descriptor, for children to hold as well."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another kdtrain compare works in {out}, or runs of one that was killed still write their "
                "checkpoints: wait for it to end, or choose another --out"
            ) from error
        yield file.fileno()
