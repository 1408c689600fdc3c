"""Trains students from a cache; usable from any training loop.

What another loop needs, imported when it is first asked for:

- :class:`TeacherCache`: ``TeacherCache.open(url)``, then ``.fetch(view, rows)``
- :class:`ReplayDataset`: the samples in the views the teacher saw
- :class:`RecordDecoder`: packed records to dense logits, on the device
- ``LOSSES``: the losses by name
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache_builder.tensors.decode import RecordDecoder
    from trainer.losses import LOSSES
    from trainer.replay.view_dataset import ReplayDataset
    from trainer.teacher.client import TeacherCache

__all__ = ["LOSSES", "RecordDecoder", "ReplayDataset", "TeacherCache"]

_HOMES = {
    "LOSSES": "trainer.losses",
    "RecordDecoder": "cache_builder.tensors.decode",
    "ReplayDataset": "trainer.replay.view_dataset",
    "TeacherCache": "trainer.teacher.client",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
