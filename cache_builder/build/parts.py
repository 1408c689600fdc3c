"""A cache built in parts: some rows here, others elsewhere, all of one data set.

A part is the whole cache's store in which only some tiles are written: ids, labels, views and basis are those
of all rows, and rows keep their numbers. So whatever a view draws by its row (crops, mixing partners) is the
same as in one build, and joining parts is putting their tiles together.
"""

from __future__ import annotations

from dataclasses import replace

from cache_builder.build.plan import Plan, check_codec
from cache_builder.build.settings import BuildSettings
from cache_builder.datasets import ImageSample, ImageSource
from cache_builder.datasets.source import Wrapped
from cache_builder.format.errors import ConfigError, DataError, KDCacheError
from cache_builder.format.layout import Tile, tiles
from cache_builder.format.manifest import FORMAT_VERSION, Manifest, differing_names, differing_settings
from cache_builder.format.reader import Cache, open_cache
from cache_builder.format.same_samples import differing_array
from cache_builder.format.writer import NO_RESULTS, create, header_digests


def parse_rows(text: str | None, samples: int) -> range:
    """``START:STOP`` as a range of rows; either end may be left out, None = all."""
    if text is None:
        return range(samples)
    start, colon, stop = text.partition(":")
    try:
        first, last = int(start or 0), int(stop or samples)
    except ValueError:
        first = last = -1
    if not colon or not 0 <= first < last <= samples:
        raise ConfigError(f"--rows {text}: expected START:STOP with 0 <= START < STOP <= {samples}")
    return range(first, last)


def part_tiles(manifest: Manifest, rows: str | None) -> list[Tile]:
    """The tiles of some rows; :class:`ConfigError` where they begin or end within a tile."""
    samples, height = manifest.data.samples, manifest.tiling.rows
    wanted = parse_rows(rows, samples)
    if wanted.start % height or (wanted.stop % height and wanted.stop != samples):
        first = wanted.start - wanted.start % height
        last = min(-(-wanted.stop // height) * height, samples)
        raise ConfigError(
            f"--rows {rows}: tiles hold {height} rows and are written whole; use --rows {first}:{last}, or "
            "another --tile-rows for all parts"
        )
    return [tile for tile in tiles(manifest) if tile.row_start in wanted]


class PartSource(Wrapped):
    """The data set of a part, in which samples of other parts must be readable too, where they are needed.

    A mixing partner that cannot be read leaves a picture unmixed. Its own part would mark it as invalid, or
    stop; here nobody would notice, and a trainer would mix it.
    """

    def __init__(self, source: ImageSource, rows: range) -> None:
        super().__init__(source)
        self._rows = rows

    def read(self, index: int) -> ImageSample:
        """As the data set does; raises :class:`KDCacheError` for a sample of another part."""
        try:
            return self._source.read(index)
        except DataError as error:
            if index in self._rows:
                raise
            raise KDCacheError(
                f"sample {self._source.ids[index]!r} of another part is needed here, to calibrate or as a "
                f"mixing partner, and cannot be read: {error}"
            ) from error


def of_part(plan: Plan) -> Plan:
    """A plan whose ``--rows`` are checked, and whose data set knows them."""
    part_tiles(plan.manifest, plan.settings.rows)
    return replace(plan, source=source_of_part(plan.settings, plan.source))


def source_of_part(settings: BuildSettings, source: ImageSource) -> ImageSource:
    """The data set as those see it who build the rows of ``--rows``."""
    if settings.rows is None or settings.on_error == "skip":
        return source
    return PartSource(source, parse_rows(settings.rows, len(source)))


def begun_like(plan: Plan) -> Manifest | None:
    """Begin the output of a plan with basis and probe of the part that ``--like`` names; None without one.

    Parts on different machines would else each fit a basis of their own, and could not be joined as they are.
    """
    like = plan.settings.like
    if like is None:
        return None
    model = open_cache(like, allow_partial=True)
    manifest = called(model.manifest, plan.manifest)
    differing = differing_settings(manifest, plan.manifest)
    differing += differing_names(model.class_names, plan.table.names.teacher)
    if differing:
        raise ConfigError(
            f"--like {like} is part of a cache of other settings (there -> asked for):\n  "
            + "\n  ".join(differing)
        )
    path = differing_array(model, plan.table)
    if path is not None:
        raise ConfigError(
            f"--like {like} has other sample ids or labels than {plan.settings.data} here ({path}): "
            "every part needs the same data set, whichever rows it builds"
        )
    check_codec(plan.settings, manifest, f"--like {like}")
    return copy_begun(model, plan.settings.out, manifest)


def called(manifest: Manifest, other: Manifest) -> Manifest:
    """A manifest without results, with another one's name and path of the data set: parts differ there."""
    data = manifest.data.model_copy(update={"spec": other.data.spec})
    return manifest.model_copy(update={**NO_RESULTS, "name": other.name, "data": data})


def copy_begun(model: Cache, out: str, manifest: Manifest) -> Manifest:
    """Create a store without tiles that has the header arrays of another one, of whatever version.

    Gives the manifest as it was written.
    """
    arrays = model.header_arrays()
    update = {"format_version": FORMAT_VERSION, "digests": header_digests(arrays)}
    begun = manifest.model_copy(update=update)
    create(out, begun, arrays)
    return begun
