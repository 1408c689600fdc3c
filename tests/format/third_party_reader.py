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
    tables = {name: array[...] for name, array in root["codec" + below].arrays()}
    records = dict(root["records" + below].arrays())
    if codec["name"] == "joint-sketch":
        group = {"sample": view // manifest["tiling"]["views"], "view": view}
        field = {name: blocks(array, group[name], codec, name, tables) for name, array in records.items()}
    else:
        field = {name: array[view] for name, array in records.items()}
    decode = {"class-sketch": class_sketch, "joint-sketch": joint_sketch}.get(codec["name"], topk_tail)
    index, logits, top = decode(codec, field, tables)
    np.put_along_axis(logits, index, top, axis=1)
    if "positions" in manifest and manifest["positions"]["kind"] == "ragged":
        runs = zip(root["samples/position_start"][...], root["samples/position_count"][...], strict=True)
        logits = np.concatenate([logits[start : start + count] for start, count in runs])
    return logits


def topk_tail(codec, field, tables):
    """Section 5 of FORMAT.md."""
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


def joint_sketch(codec, field, tables):
    """Section 12 of FORMAT.md."""
    shared, own, k = field["sample"], field["view"], codec["top_k"]
    own, places, residuals = own[:, 1:], own[:, -2 * k : -k], own[:, -k:].astype("f4")
    rank, unit = own.shape[1] - 2 * k, codec["step"] * 2.0 ** -(codec["finer"] + 12)
    basis, constant = tables["basis"].astype(int), (tables["mean"] <= -5000) & ("masks" in codec)
    units = np.where(constant, -(2.0**47), np.rint(tables["mean"].astype(float) / unit)).astype(int)
    units = units + shared @ basis[: shared.shape[1]] + 2 ** codec["finer"] * own[:, :rank] @ basis[:rank]
    index = np.argsort(-units, axis=1, kind="stable")[np.arange(len(units))[:, None], places]
    sketch = np.where(constant, tables["mean"], units.astype("f4") * np.float32(unit))
    step = np.float32(codec["value_step"])
    top = np.take_along_axis(sketch, index, axis=1) + step * residuals
    top[field["view"][:, 0] != 0] = np.nan
    return index, np.minimum(sketch, top[:, -1:] - step / 8), top


def blocks(array, first, codec, name, tables):
    """The integers [P, s] of a coded field: those of each chunk, one after the other."""
    values = [m for count, m in codec[f"{name}_values"] for _ in range(count)]
    found, height = [], array.chunks[1]
    for start in range(0, array.shape[1], height):
        chunk = array[first, start : start + height]
        data, rows = chunk.tobytes(), len(chunk)
        if data[0] == 1:
            packed = np.frombuffer(data[1 : 1 + rows * (chunk.shape[1] - 1)], "u1")
            found.append(digits(values, packed.reshape(rows, -1).astype(int)))
        else:
            assert data[0] == 0
            found.append(
                entropy(data[1:], rows, tables[f"{name}_tables"].tolist(), tables[f"{name}_low"].tolist())
            )
    return np.concatenate(found)


def digits(values, packed):
    """Integers [n, s] from the bytes [n, bytes] of packed rows."""
    found, at, weight = [], -1, 256
    for m in values:
        if weight * m > 256:
            at, weight = at + 1, 1
        whole = packed[:, at]
        if m == 65535:
            at += 1
            whole = whole + 256 * packed[:, at]
        found.append(whole // weight % m - (m - 1) // 2)
        weight *= m
    return np.stack(found, axis=1)


def entropy(data, rows, tables, low):
    """Integers [rows, s] of a block."""
    lanes = -(-rows // 16)
    states = np.frombuffer(data[: 4 * lanes], "<u4").tolist()
    words = iter(np.frombuffer(data[4 * lanes : len(data) // 2 * 2], "<u2").tolist())
    found = np.zeros((rows, len(tables)), int)

    def moved(lane, state):
        states[lane] = state if state >= 2**16 else state * 2**16 + next(words)

    def plain(lane, bits):
        value = states[lane] % 2**bits
        moved(lane, states[lane] >> bits)
        return value

    for first in range(0, rows, lanes):
        here = range(min(lanes, rows - first))
        for column, table in enumerate(tables):
            starts = np.cumsum([0, *table]).tolist()
            for lane in here:
                slot = states[lane] % 2**14
                place = int(np.searchsorted(starts, slot, side="right")) - 1
                moved(lane, table[place] * (states[lane] >> 14) + slot - starts[place])
                found[first + lane, column] = place - 31
            beyond = [lane for lane in here if found[first + lane, column] == 32]
            found[[first + lane for lane in beyond], column] = 0
            for byte in range(3):
                for lane in beyond:
                    found[first + lane, column] += plain(lane, 8) << 8 * byte
            for lane in beyond:
                found[first + lane, column] -= 2**24 * (found[first + lane, column] >= 2**23)
            for lane in here if low[column] else ():
                found[first + lane, column] = (found[first + lane, column] << low[column]) + plain(
                    lane, low[column]
                )
    assert set(states) <= {2**16}
    return found
