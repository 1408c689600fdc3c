"""The record of published caches, stored as ours are: the K largest probabilities, the rest spread evenly.

Class ids and log-probabilities at T = 1 in half precision, as columns of a store, so that what differs from
our records is what is kept and not how it is compressed.
"""

from __future__ import annotations

import numpy as np

from benchmarks.encodings import Encoded, Floats, chunked_bytes, even_tail, top_log_probs
from cache_builder.format.codecs.record import Column, record_layout


def top_k_even_tail(logits: Floats, k: int) -> Encoded:
    """``logits`` [n, C] by their K largest probabilities."""
    index, values = top_log_probs(logits, k)
    layout = record_layout((Column("index", "<u2", k), Column("log_prob", "<f2", k)))
    half = values.astype(np.float16)
    columns = {"index": index.astype("<u2"), "log_prob": half}
    size = sum(chunked_bytes(columns[field.name], field) for field in layout.fields)
    decoded = even_tail(index, half.astype(np.float32), logits.shape[1])
    return Encoded(f"top {k}, even tail", size, decoded)
