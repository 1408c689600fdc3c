"""The log: one event a line on stderr, for people or as JSON; what clients send cannot add lines to it."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from logit_server.settings import Settings

NAME = "logit_server"

_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    code: f"\\u{code:04x}" for code in (0x2028, 0x2029)
}
"""Characters that end a line or steer a terminal."""

_logger = logging.getLogger(NAME)


def tell(level: int, event: str, message: str, *arguments: object, **fields: Any) -> None:
    """Log an event: a sentence for people, and what programs go by."""
    _logger.log(level, message, *arguments, extra={"event": event, "fields": fields})


def is_told(level: int) -> bool:
    """Whether events of a level are logged."""
    return _logger.isEnabledFor(level)


def log_config(settings: Settings) -> dict[str, Any]:
    """The configuration of ``logging`` for a server; of uvicorn itself only its troubles are logged."""
    kind = JsonLines if settings.log_format == "json" else TextLines
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": kind}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "loggers": {
            NAME: {"handlers": ["stderr"], "level": level, "propagate": False},
            "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        },
    }


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, event, message, process id, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line."""
        line = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "message": record.getMessage(),
            "pid": record.process,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """Time, level and message; what belongs to a traceback is indented."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as a line, or as several where it has a traceback."""
        lines = [f"{_time_of(record)} {record.levelname:<7} {_printable(record.getMessage())}"]
        if record.exc_info:
            text = self.formatException(record.exc_info)
            lines += [f"    {_printable(line)}" for line in text.split("\n")]
        return "\n".join(lines)


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _printable(text: str) -> str:
    return text.translate(_ESCAPED)
