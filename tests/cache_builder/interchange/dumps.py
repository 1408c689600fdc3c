"""Dumps as other programs write them, for tests. Written from their formats, with their own quirks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: np.ndarray = exponents / exponents.sum(axis=-1, keepdims=True)
    return probabilities


def write_tinyvit(folder: Path, logits: np.ndarray, ids: Sequence[str], top_k: int, ranks: int = 2) -> None:
    """``logits`` [epochs, N, C]; each epoch in an order of its own, dealt out to the ranks."""
    for epoch, of_epoch in enumerate(logits):
        path = folder / f"logits_top{top_k}_epoch{epoch}"
        path.mkdir(parents=True)
        order = np.random.default_rng(epoch).permutation(len(ids))
        probabilities = softmax(of_epoch)
        for rank in range(ranks):
            rows = order[rank::ranks]
            (path / f"rank{rank}-keys.txt").write_text("".join(f"{ids[row]}\n" for row in rows))
            records = []
            for row in rows:
                index = np.argsort(-probabilities[row])[:top_k]
                seed = np.int32(row * 7 + epoch)
                value = probabilities[row][index].astype(np.float16)
                records.append(seed.tobytes() + index.astype(np.int16).tobytes() + value.tobytes())
            (path / f"rank{rank}-values.bin").write_bytes(b"".join(records))


def write_fkd(folder: Path, logits: np.ndarray, names: Sequence[str], top_k: int | None) -> None:
    """``logits`` [crops, N, C]; one file for each image, ``top_k`` None = full soft labels."""
    for row, name in enumerate(names):
        path = folder / f"{name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        probabilities = torch.from_numpy(softmax(logits[:, row])).float()
        labels = probabilities
        if top_k is not None:
            value, index = probabilities.topk(top_k, dim=1)
            labels = torch.stack([index.float(), value], dim=1)
        crops = len(probabilities)
        coordinates = np.random.default_rng(row).random((crops, 4)).astype(np.float32)
        torch.save([coordinates, np.zeros(crops, np.bool_), labels], path)
