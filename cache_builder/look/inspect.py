"""``kdcache inspect``: what a cache holds, how big it is, how good the teacher was, one sample."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cache_builder.calibration.rate_distortion import rate_table
from cache_builder.console.as_built import as_built_facts, as_built_warnings
from cache_builder.console.dotted import is_dotted
from cache_builder.console.fidelity import fidelity_facts, fidelity_warnings, measured_views, megabytes
from cache_builder.datasets.orders import BetterOrder, OrderTally
from cache_builder.format.class_names import ClassNames
from cache_builder.format.errors import ConfigError, CorruptCacheError, DataError, IncompleteCacheError
from cache_builder.format.held import HeldStore
from cache_builder.format.layout import record_arrays
from cache_builder.format.listing import Listing
from cache_builder.format.locations import is_remote
from cache_builder.format.manifest import GridPositions, Manifest, RaggedPositions
from cache_builder.format.positions import PositionSummary
from cache_builder.format.reader import Cache, open_cache
from cache_builder.format.statistics import TeacherStatistics
from cache_builder.look.decoded_sample import SampleView, decode_sample, show_sample

_OWN_SHOWN = 10
CLASS_FACTS = ("labels", "class names", "pictures", "left out")
"""Keys of the manifest's ``environment``: where labels, names, pictures came from, what was left out."""
_DECODINGS = {
    1: "rule 1, pictures as they are stored, EXIF orientation ignored",
    2: "rule 2, pictures turned upright by their EXIF orientation, 16-bit and float ones scaled to 8 bits",
}
_OF_FILES = ("imagefolder:", "webdataset:", "hf:", "csv:", "parquet:")
_STEPS = "▁▂▃▄▅▆▇█"
# Dense logits in memory while accuracy is counted.
_LOGITS_AT_ONCE = 2**23
# Blocks, spread over the rows, on which other orders of the classes are tried.
_BLOCKS_OF_ORDER = 8
# On a remote store, where each costs a request an array.
_BLOCKS_FROM_AFAR = 2


_BUDGET_NOISE = 0.02
"""By so much records may differ from what calibration measured without a word."""


@dataclass(frozen=True)
class CacheSize:
    """Bytes on disk."""

    total_bytes: int
    record_bytes: int
    bytes_per_view: float
    """Record shards over committed records: what one (sample, view) costs."""


@dataclass(frozen=True)
class TeacherQuality:
    """The teacher's accuracy over the recorded views, from the cache alone."""

    top1: float
    top5: float
    nll: float
    """Mean negative log-likelihood of the label, in nats."""
    views: int
    """Labelled records counted."""


@dataclass(frozen=True)
class Description:
    """Everything ``inspect`` shows."""

    location: str
    manifest: Manifest
    names: ClassNames
    tiles: int
    committed: int
    size: CacheSize
    quality: TeacherQuality | None
    """From ``statistics`` where every tile has them, else from the stored records."""
    statistics: TeacherStatistics | None
    """From the live logits, measured when the cache was built."""
    positions: PositionSummary
    """Of the rows, in every view."""
    sample: SampleView | None
    order: BetterOrder | None = None
    """Another order of the classes under which the teacher is right on far more stored views."""

    @property
    def warnings(self) -> list[str]:
        """What a user should know before training from the cache."""
        return [*fidelity_warnings(self.manifest), *as_built_warnings(self.manifest, self.statistics)]

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        body = asdict(self) | {"manifest": self.manifest.model_dump(mode="json")}
        body |= {
            "fidelity": fidelity_facts(self.manifest) | as_built_facts(self.manifest, self.statistics),
            "warnings": self.warnings,
        }
        if self.sample is not None:
            body["sample"] = self.sample.as_json(self.manifest.positions.kind == "one")
        return body | {"complete": self.committed == self.tiles and self.manifest.cache_id is not None}


def describe(location: str, sample_id: str | None, view: int) -> Description:
    """Look at all of a cache, also of an incomplete one; :class:`CorruptCacheError` for a damaged one.

    On a local disk every byte is compared with the commits. On a remote store that would cost a request an
    object, so that sizes are compared, of which one listing tells a thousand; ``kdcache verify`` reads all
    bytes. Of the records, few are decoded.
    """
    cache = open_cache(location, allow_partial=True)
    manifest, known = cache.manifest, cache.listing()
    damaged = None if is_remote(location) else next(cache.damaged_shards(), None)
    if damaged is not None:
        raise CorruptCacheError(
            f"{location}: shard {damaged} is missing or not what its commit says; restore the file or "
            "rebuild the cache"
        )
    cache.check_shards(known=known)
    row = int(cache.stored_ids.rows_for([sample_id])[0]) if sample_id is not None else 0
    if not 0 <= view < manifest.views.count:
        raise DataError(f"view {view} is out of range: the cache has views 0 to {manifest.views.count - 1}")
    tally, (of_sample, of_order) = order_tally(cache), _held(cache, row, view)
    return Description(
        location=location,
        manifest=manifest,
        names=cache.names,
        tiles=len(cache.tiles),
        committed=len(cache.commits),
        size=cache_size(location, manifest, known),
        quality=teacher_quality(cache, tally, of_order),
        statistics=cache.statistics(),
        positions=cache.positions.summary(range(manifest.data.samples)),
        sample=decode_sample(cache, row, view, of_sample),
        order=tally.better(),
    )


def _held(cache: Cache, row: int, view: int) -> tuple[HeldStore | None, HeldStore | None]:
    """On a remote store, what is shown of a sample and what the order is judged by, each fetched at once."""
    if not is_remote(cache.location):
        return None, None
    block = row // cache.blocks.height
    judged = {first: _blocks_of_order(cache) for first in _unmixed_views(cache.manifest)[:1]}
    if view in judged:
        held = _held_blocks(cache, view, [block, *judged[view]])
        return held, held
    of_order = [_held_blocks(cache, other, blocks) for other, blocks in judged.items()]
    return _held_blocks(cache, view, [block]), next(iter(of_order), None)


def _held_blocks(cache: Cache, view: int, blocks: list[int]) -> HeldStore:
    start = view // cache.manifest.tiling.views * len(cache.blocks)
    of_tiles = [cache.tiles[start + block] for block in dict.fromkeys(blocks)]
    there = [tile for tile in of_tiles if tile.key in cache.commits]
    return cache.held_shards(there, record_arrays(cache.manifest), view)


def _blocks_of_order(cache: Cache) -> list[int]:
    """Blocks, spread over the rows, on which other orders of the classes are tried."""
    most = _BLOCKS_FROM_AFAR if is_remote(cache.location) else _BLOCKS_OF_ORDER
    spread = np.linspace(0, len(cache.blocks) - 1, most).round().astype(np.int64)
    blocks: list[int] = np.unique(spread).tolist()
    return blocks


def cache_size(location: str | Path, manifest: Manifest, known: Listing | None = None) -> CacheSize:
    """Bytes on disk of all objects, and of the record shards per record; ``known``: what a listing says."""
    known = open_cache(location, allow_partial=True).listing() if known is None else known
    prefixes = tuple(f"{spec.path}/c/" for spec in record_arrays(manifest))
    records = sum(listed.size for key, listed in known.items() if key.startswith(prefixes))
    counted = manifest.data.samples * manifest.views.count
    return CacheSize(sum(listed.size for listed in known.values()), records, records / counted)


def order_tally(cache: Cache) -> OrderTally:
    """Of a cache: sorted orders of the class names count only where labels were matched by position."""
    manifest = cache.manifest
    is_named = manifest.data.matched in ("name", "file")
    names = None if is_named else cache.class_names
    return OrderTally(names, manifest.classes, manifest.views.count)


def teacher_quality(
    cache: Cache, tally: OrderTally | None = None, held: HeldStore | None = None
) -> TeacherQuality | None:
    """Top-1, top-5 and NLL over all committed views of labelled samples; None without labels.

    As measured while the cache was built; where an older release or an import wrote a tile, of the stored
    records. Views that mix samples do not count: a mixture has no single label. ``tally`` counts stored
    records: some blocks of one view, or all that are read anyway. ``held``: what was fetched of the blocks.
    """
    if not cache.has_labels:
        return None
    views = _unmixed_views(cache.manifest)
    if not _is_measured(cache):
        return _stored_quality(cache, views, range(len(cache.blocks)), tally, None)
    if tally is not None:
        _stored_quality(cache, views[:1], _blocks_of_order(cache), tally, held)
    return _measured_quality(cache.statistics())


def _is_measured(cache: Cache) -> bool:
    return all(commit.statistics is not None for commit in cache.commits.values())


def _measured_quality(statistics: TeacherStatistics | None) -> TeacherQuality | None:
    if statistics is None or statistics.top1 is None or statistics.top5 is None or statistics.nll is None:
        return None
    return TeacherQuality(statistics.top1, statistics.top5, statistics.nll, statistics.labelled)


def _stored_quality(
    cache: Cache,
    views: list[int],
    blocks: Sequence[int],
    tally: OrderTally | None,
    held: HeldStore | None,
) -> TeacherQuality | None:
    """Of the stored records of some views and blocks, as far as they are committed."""
    sums = np.zeros(4)
    at_once = max(1, _LOGITS_AT_ONCE // cache.manifest.classes)
    for view, block in itertools.product(views, blocks):
        rows = cache.blocks.rows(block)
        with contextlib.suppress(IncompleteCacheError):
            records = cache.read_rows(view, rows, held=held)
            labels = np.repeat(cache.labels_of(rows), cache.positions.counts(rows))
            for start in range(0, len(records), at_once):
                part = slice(start, start + at_once)
                sums += _count(cache, records[part], labels[part], tally)
    if sums[3] == 0:
        return None
    top1, top5, nll = (sums[:3] / sums[3]).tolist()
    return TeacherQuality(top1, top5, nll, int(sums[3]))


def _unmixed_views(manifest: Manifest) -> list[int]:
    return [view for view in range(manifest.views.count) if not _mixes(manifest, view)]


def _mixes(manifest: Manifest, view: int) -> bool:
    """Whether a view may mix samples, so that its records have no one label."""
    recipe = manifest.views.recipe
    if not is_dotted(recipe.name) and not recipe.configuration.get("mix"):
        return False
    from cache_builder.views import recipe_from

    try:
        return recipe_from(recipe).mixes(view)
    except ConfigError:
        return True


def _count(
    cache: Cache, records: NDArray[np.uint8], labels: NDArray[np.int32], tally: OrderTally | None
) -> NDArray[np.float64]:
    """Top-1 hits, top-5 hits, summed NLL and number of labelled valid records."""
    kept = cache.stored(records)
    known = (labels >= 0) & np.isfinite(kept.lse)
    logits, labels = cache.decode(records[known]), labels[known]
    own = np.take_along_axis(logits, labels[:, None].astype(np.int64), axis=1)[:, 0]
    # The label's rank among decoded logits; the stored order decides within the top K.
    best = kept.classes[known]
    if tally is not None:
        tally.add(labels, best[:, 0])
    stored_rank = np.where(best == labels[:, None], np.arange(best.shape[1]), logits.shape[1]).min(axis=1)
    rank = np.minimum(stored_rank, (logits > own[:, None]).sum(axis=1))
    nll = kept.lse[known] - own
    return np.array([(stored_rank == 0).sum(), (rank < 5).sum(), nll.sum(), known.sum()], np.float64)


def show(description: Description, console: Console) -> None:
    """Print for people."""
    manifest = description.manifest
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _facts(description).items():
        table.add_row(Text(name, "bold"), Text(value))
    console.print(table)
    if manifest.calibration.table:
        measured = f"on {measured_views(manifest)} (*: this cache)"
        console.print(Text(f"\nwhat a byte buys, {measured}", "bold"))
        console.print(rate_table(manifest.calibration))
    show_sample(description.sample, manifest, description.names, console)


def _facts(description: Description) -> dict[str, str]:
    manifest, size = description.manifest, description.size
    complete = description.committed == description.tiles and manifest.cache_id is not None
    teacher, views = manifest.teacher, manifest.views
    seen = manifest.input
    parameters = ", ".join(described(views.recipe.configuration))
    facts = {
        "cache": f"{description.location} ({manifest.name}), format {manifest.format_version}",
        "cache_id": manifest.cache_id or "none yet",
        "state": "complete"
        if complete
        else f"INCOMPLETE: {description.committed} of {description.tiles} tiles committed",
        "data": f"{manifest.data.spec}: {manifest.data.samples:,} samples, {manifest.classes:,} classes",
        **class_facts(manifest, description.names.own),
        "teacher": f"{teacher.spec}, weights {teacher.weights} (digest {teacher.weights_digest})",
        "input": f"{seen.size} px, {seen.interpolation}, {teacher.precision}",
        **position_facts(description),
        "views": f"{views.count}, recipe {views.recipe.name} ({parameters}), seed {views.seed}",
        "record": record_in_words(manifest),
        "size": size_in_words(size, manifest),
        **fidelity_facts(manifest),
        **as_built_facts(manifest, description.statistics),
    }
    if said := over_budget(manifest, size):
        facts["size"] += f", {said}"
    if warnings := description.warnings:
        facts["faithful"] = "\n".join(warnings)
    if manifest.invalid_rows:
        facts["invalid"] = f"{len(manifest.invalid_rows)} unreadable samples"
    if description.quality and not (description.statistics and description.statistics.labelled):
        quality = description.quality
        facts["accuracy"] = (
            f"teacher top-1 {quality.top1:.2%}, top-5 {quality.top5:.2%}, NLL {quality.nll:.4f} "
            f"over {quality.views:,} stored views"
        )
    if description.statistics:
        facts["live"] = "\n".join(statistics_lines(description.statistics))
    if description.order:
        facts["order"] = description.order.warning(manifest.data.spec)
    return facts


def position_facts(description: Description) -> dict[str, str]:
    """How many positions the samples have, where that may be another number than one."""
    positions, found = description.manifest.positions, description.positions
    match positions:
        case GridPositions(shape=(height, width)):
            return {"positions": f"grid of {height} x {width}: {found}"}
        case RaggedPositions():
            return {"positions": f"ragged: {found}"}
        case _:
            return {}


def size_in_words(size: CacheSize, manifest: Manifest) -> str:
    """Of the whole cache, of a view's record, and of that with its part of all else."""
    records = manifest.data.samples * manifest.views.count
    return (
        f"{megabytes(size.total_bytes)}, {size.bytes_per_view:.1f} bytes per view "
        f"({size.total_bytes / records:.1f} with ids, what decodes records, and probe)"
    )


def record_in_words(manifest: Manifest) -> str:
    """The codec, what it keeps, and by how much decoded logits are off."""
    codec, found = manifest.codec, manifest.calibration
    said = f"{codec.name}, {codec.layout.record_bytes} bytes unpacked: {codec.described(manifest.classes)}"
    if found.logit_std:
        said += f", rms error {found.tail_error:.3f} of spread {found.logit_std:.3f}"
    return said


def over_budget(manifest: Manifest, size: CacheSize, budget: float | None = None) -> str | None:
    """What to say where the records take more on disk than ``--bytes-per-view``; None where they do not.

    ``budget``: what was asked for, where the manifest does not have it (it has not where K = C).
    """
    asked, classes = manifest.requested.codec, manifest.classes
    budget = asked.bytes_per_view or budget
    is_by_hand = asked.top_k == classes or None not in (
        asked.top_k, asked.tail_rank, asked.tail_step, asked.value_step
    )  # fmt: skip
    if budget is None or is_by_hand or size.bytes_per_view <= (1 + _BUDGET_NOISE) * budget:
        return None
    if manifest.codec.name == "all-logits":
        why = (
            f"the cache has too few records for a basis, so that all {classes} logits are stored in 16 bits; "
            "--codec joint-sketch keeps nearer to it"
        )
    elif manifest.codec.kept(classes) == classes:
        why = f"{classes} classes are so few that each is stored by itself, and chunks add to it"
    else:
        why = (
            "few records compress less well than many, and calibration saw other views; a smaller "
            "--bytes-per-view keeps the limit"
        )
    return f"{size.bytes_per_view / budget - 1:.0%} above --bytes-per-view {budget:g}: {why}"


def class_facts(manifest: Manifest, own: tuple[str, ...] | None) -> dict[str, str]:
    """Where labels and class names came from; the data's own classes where they are not the teacher's."""
    told = {name: manifest.environment[name] for name in CLASS_FACTS if name in manifest.environment}
    if manifest.input.decoding > 1 or manifest.data.spec.startswith(_OF_FILES):
        told["decoding"] = _DECODINGS[manifest.input.decoding]
    if own is not None:
        some = ", ".join(own[:_OWN_SHOWN]) + (", ..." if len(own) > _OWN_SHOWN else "")
        told["classes of the data"] = f"{some} ({len(own):,}), not the teacher's; no labels stored"
    return told


def described(configuration: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A recipe's configuration as ``section.parameter=value``; sections that are not there are left out."""
    for key, value in configuration.items():
        if isinstance(value, Mapping):
            # A base is a name with its configuration: what it is called is its prefix already.
            yield from described(value, prefix if key == "configuration" else f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}={value:g}" if isinstance(value, int | float) else f"{prefix}{key}={value}"


def statistics_lines(statistics: TeacherStatistics | None) -> list[str]:
    """The teacher's figures in words, with the histogram of its entropy."""
    if statistics is None:
        return []
    lines = []
    if statistics.top1 is not None:
        lines.append(
            f"teacher top-1 {statistics.top1:.2%}, top-5 {statistics.top5:.2%}, NLL {statistics.nll:.4f}, "
            f"calibration error {statistics.ece:.2%} over {statistics.labelled:,} live views"
        )
    if statistics.is_guessing:
        lines.append(
            "WARNING: the teacher is right no more often than by guessing: was it trained with this "
            "normalisation and size (--mean, --std, --input-size), with classes in this order?"
        )
    lines.append(
        f"entropy {statistics.entropy:.3f} nats, 0 │{histogram(statistics.entropy_histogram)}│ "
        f"{statistics.entropy_limit:.2f} over {statistics.records:,} live views"
    )
    return lines


def histogram(counts: tuple[int, ...]) -> str:
    """One character for each count, its height against the largest; a space for none."""
    largest = max(counts)
    # Upwards: what is there is seen, however little it is.
    return "".join(_STEPS[-(-count * len(_STEPS) // largest) - 1] if count else " " for count in counts)
