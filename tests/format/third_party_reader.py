"""A reader of format version 1 with plain zarr and NumPy, written from FORMAT.md alone."""

import hashlib
import json
from pathlib import Path

import numpy as np
import zarr


def canonical(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def check(path, manifest):
    """Sections 5 to 7: every tile committed, every object of its size, and the cache_id."""
    samples, views, tiling = manifest["data"]["samples"], manifest["views"]["count"], manifest["tiling"]
    digest = hashlib.sha256(canonical({k: v for k, v in manifest.items() if k != "cache_id"}))
    for group in range(-(-views // tiling["views"])):
        for block in range(-(-samples // tiling["rows"])):
            commit = (path / f"commits/g{group:05d}-b{block:07d}.json").read_bytes()
            body = json.loads(commit)
            settled = {key: value for key, value in body.items() if key != "statistics"}
            digest.update(b"\n" + (commit if settled == body else canonical(settled)))
            for array, shard in body["shards"].items():
                at = f"{block}" if array == "samples/digest" else f"{group}/{block}"
                at += "/0" * (zarr.open_array(path / array, mode="r").ndim - 2)
                assert (path / array / "c" / at).stat().st_size == shard["bytes"]
    assert digest.hexdigest()[:32] == manifest["cache_id"]


def read_logits(path, view):
    """Decoded logits float32 [N, C] of one view: sections 3 and 4."""
    root = zarr.open_group(path, mode="r")
    manifest = root.attrs["kdcache"]
    check(Path(path), manifest)
    field = {name: array[view] for name, array in root["records"].arrays()}
    top_max, span = field["topk_max"][:, None], field["topk_span"].astype("f4")[:, None]
    coef = [field[name] for name in ("tail_coef_wide", "tail_coef") if name in field]
    step = np.float32(manifest["codec"]["tail_step"])
    sketch = step * np.concatenate(coef, axis=1) @ root["codec/basis"][...] if coef else np.float32(0)
    logits = np.minimum(root["codec/mean"][...] + sketch, top_max - span)
    top = top_max - span * (field["topk_value"] / np.float32(255))
    np.put_along_axis(logits, field["topk_index"].astype(int), top, axis=1)
    return logits
