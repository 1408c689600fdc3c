"""The folder of a run: configuration, metrics, checkpoints, weights, report.

config.json        resolved configuration       metrics.jsonl   one JSON object a line
best.safetensors   last.safetensors             tensorboard/    the same metrics as events
checkpoints/       what --resume continues      report.md, curves.png
"""

from __future__ import annotations

import json
import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cache_builder.format import ConfigError, DataError
from trainer.run.config import RunConfig, differing_fields
from trainer.run.settings import KEPT_CHECKPOINTS
from trainer.run.text_files import write_text

if TYPE_CHECKING:
    from trainer.run.checkpoint import Checkpoints
    from trainer.run.remote_run import RemoteRun

CONFIG, METRICS, TENSORBOARD, REPORT = "config.json", "metrics.jsonl", "tensorboard", "report.md"
BEST, LAST = "best.safetensors", "last.safetensors"
DRIFT = "render-drift"
# What a run that was stopped before it noted its settings leaves: the lock (in the folder itself where the
# one above cannot be written to), the settings half written, and the pictures of a renderer that drifted.
_LEFT = (DRIFT, ".lock", f".{CONFIG}.partial")
Row = dict[str, Any]

log = logging.getLogger(__name__)


class RunFolder:
    """What lies under ``--out``, or the folder that what lies there is at hand in."""

    def __init__(
        self, path: Path, keep_checkpoints: int = KEPT_CHECKPOINTS, remote: RemoteRun | None = None
    ) -> None:
        self.path = path
        self.name = str(path) if remote is None else remote.url
        """What the user calls it."""
        self._kept = keep_checkpoints
        self._remote = remote

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Its checkpoints; imported here as they bring torch."""
        from trainer.run.checkpoint import Checkpoints

        return Checkpoints(self.path, self._kept, self.name)

    def publish(self) -> None:
        """Copy what changed to where the user wants the run, unless it is there; on the main process only."""
        if self._remote is not None:
            self._remote.publish()

    def check_free(self, resume: bool) -> None:
        """Before any work: raise :class:`ConfigError` where another run or something else is in the way."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file: choose another --out")
        if (self.path / CONFIG).exists():
            if not resume:
                raise ConfigError(
                    f"{self.name} already holds a run: add --resume to go on, or choose another --out"
                )
        elif self.path.exists() and any(item.name not in _LEFT for item in self.path.iterdir()):
            raise ConfigError(f"{self.path} is not empty and holds no run: choose another --out")
        elif resume:
            # Jobs that may be stopped at any time pass --resume always; a mistyped --out must still be seen.
            log.warning("--resume: there is no run in %s yet, so a new one begins", self.name)

    def begin(self, config: RunConfig) -> None:
        """Note the configuration; raise :class:`ConfigError` naming fields that differ from a stored one."""
        stored = self.stored_config()
        if stored is None:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / CONFIG, config.model_dump_json(indent=1))
            return
        differing = differing_fields(stored, config)
        if differing:
            raise ConfigError(
                f"{self.name} holds a run of other settings (stored -> asked for):\n  "
                + "\n  ".join(differing)
                + "\nuse the stored settings to resume it, or another --out"
            )

    def stored_config(self) -> RunConfig | None:
        """The configuration of the run that is here, None where there is none."""
        path = self.path / CONFIG
        if not path.exists():
            return None
        try:
            return RunConfig.model_validate_json(path.read_text())
        except (ValidationError, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.name}/{CONFIG} is not the configuration of a run of this release; every checkpoint "
                f"in {self.name}/checkpoints has a copy, which can take its place: {error}"
            ) from error

    def read_metrics(self) -> list[Row]:
        """All rows of ``metrics.jsonl``; a line cut off by a kill, or damaged since, is left out."""
        path = self.path / METRICS
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return [row for row in map(_row, lines) if row is not None]

    def rewind_metrics(self, step: int) -> None:
        """Drop rows after a step: a resumed run writes them again."""
        rows = [row for row in self.read_metrics() if row["step"] <= step]
        write_text(self.path / METRICS, "".join(json.dumps(row) + "\n" for row in rows))


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


class MetricsLog:
    """Appends rows to ``metrics.jsonl`` and TensorBoard. Use on the main process only; close it."""

    def __init__(self, folder: RunFolder, first_step: int, tensorboard: bool) -> None:
        folder.rewind_metrics(first_step)
        self._file = (folder.path / METRICS).open("a")
        self._events = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder.path / TENSORBOARD), purge_step=first_step + 1)

    def write(self, row: Row) -> None:
        """One row; its numbers become scalars at ``row["step"]``."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._events.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        if self._events is not None:
            self._events.close()
