"""A reader of format versions 1 to 3 with plain zarr and NumPy, from FORMAT.md and HISTORY.md alone."""

import hashlib
import json
from pathlib import Path

import numpy as np
import zarr


def canonical(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def check(path, manifest):
    """Every tile committed, every object of its size, and the cache_id."""
    samples, views, tiling = manifest["data"]["samples"], manifest["views"]["count"], manifest["tiling"]
    digest = hashlib.sha256(canonical({k: v for k, v in manifest.items() if k != "cache_id"}))
    blocks = -(-samples // tiling["rows"])
    places = [(group, block) for group in range(-(-views // tiling["views"])) for block in range(blocks)]
    if manifest["format_version"] == 3:
        commits = json.loads((path / "commits/index").read_bytes())["commits"]
    else:
        commits = [json.loads((path / f"commits/g{g:05d}-b{b:07d}.json").read_bytes()) for g, b in places]
    for (group, block), commit in zip(places, commits, strict=True):
        digest.update(b"\n" + canonical({key: value for key, value in commit.items() if key != "statistics"}))
        for array, shard in commit["shards"].items():
            at = f"{block}" if array == "samples/digest" else f"{group}/{block}"
            at += "/0" * (zarr.open_array(path / array, mode="r").ndim - 2)
            assert (path / array / "c" / at).stat().st_size == shard["bytes"]
    assert digest.hexdigest()[:32] == manifest["cache_id"]


def read_logits(path, view):
    """Decoded logits float32 [positions, C] of one view, the positions of row 0 first."""
    root = zarr.open_group(path, mode="r")
    manifest = root.attrs["kdcache"]
    check(Path(path), manifest)
    below = "/logits" if manifest["format_version"] == 3 else ""
    codec = manifest["outputs"]["logits"]["codec"] if below else manifest["codec"]
    field = {name: array[view] for name, array in root["records" + below].arrays()}
    tables = {name: array[...] for name, array in root["codec" + below].arrays()}
    decode = class_sketch if codec["name"] == "class-sketch" else topk_tail
    index, logits, top = decode(codec, field, tables)
    np.put_along_axis(logits, index, top, axis=1)
    if "positions" in manifest and manifest["positions"]["kind"] == "ragged":
        runs = zip(root["samples/position_start"][...], root["samples/position_count"][...], strict=True)
        logits = np.concatenate([logits[start : start + count] for start, count in runs])
    return logits


def topk_tail(codec, field, tables):
    """Section 6 of FORMAT.md."""
    top_max, span = field["topk_max"][:, None], field["topk_span"].astype("f4")[:, None]
    coef = [field[name] for name in ("tail_coef_wide", "tail_coef") if name in field]
    step = np.float32(codec["tail_step"])
    sketch = step * np.concatenate(coef, axis=1) @ tables["basis"] if coef else np.float32(0)
    logits = np.minimum(tables["mean"] + sketch, top_max - span)
    return field["topk_index"].astype(int), logits, top_max - span * (field["topk_value"] / np.float32(255))


def class_sketch(codec, field, tables):
    """Section 4 of FORMAT.md."""
    index, step = field["topk_index"].astype(int), np.float32(codec["value_step"])
    coef = [field[name] for name in ("tail_coef_wide", "tail_coef") if name in field]
    if "tail_coef_packed" in field:
        halves = np.stack([field["tail_coef_packed"] & 15, field["tail_coef_packed"] >> 4], axis=2)
        count = codec["tail_rank"] - codec["tail_wide"] - codec["tail_bytes"]
        coef.append(halves.reshape(len(index), -1)[:, :count].astype(int) - 8)
    coef = np.concatenate(coef, axis=1) + tables["centres"][index[:, 0]]
    sketch = tables["mean"] + (np.float32(codec["tail_step"]) * coef.astype("f4")) @ tables["basis"]
    if codec["index_coding"] == "rank":
        mean, basis = tables["mean"].astype(float), tables["basis"].astype(float)
        scores = np.rint(mean * (2.0**15 / codec["tail_step"])) + tables["centres"] @ np.rint(basis * 2.0**15)
        np.fill_diagonal(scores, np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")
        index[:, 1:] = order[index[:, :1], index[:, 1:]]
    top = np.take_along_axis(sketch, index, axis=1) + step * field["topk_residual"].astype("f4")
    top = top + 0 * field["lse_above"].astype("f4")[:, None]
    return index, np.minimum(sketch, top[:, -1:] - step / 8), top
