"""The digest of tensors by name: what names a teacher, and what tells whether a weights file is whole."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import xxhash
from torch import Tensor

PAYLOAD_KEY = "payload_xxh64"
"""Key of kdcache's metadata in a weights file: :func:`tensors_digest` of what it holds."""


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """xxh64 (hex) over names, types, shapes and bytes, in name order."""
    digest = xxhash.xxh64()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
