"""Devices and precisions by the names that people give them."""

from __future__ import annotations

import torch

from cache_builder.console.names import PRECISIONS, Precision, check_device_name, check_precision_name
from cache_builder.format.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` to a device that exists; :class:`ConfigError` otherwise."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = check_device_name(name).partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> Precision:
    """``auto`` is bf16 on a GPU that has it, float32 elsewhere; :class:`ConfigError` for an unknown name."""
    if name == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    checked = check_precision_name(name)
    return next(precision for precision in PRECISIONS if precision == checked)
