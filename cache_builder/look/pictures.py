"""A process that renders views of caches as PNG pictures, for a server that must not load torch.

It reads one JSON object a line, ``{"cache": LOCATION, "data": SPEC, "row": R, "view": V}``, and answers each
with a line ``{"bytes": N}`` and the N bytes of the picture, or with a line ``{"error": SENTENCE}``. It ends
with its input.
"""

from __future__ import annotations

import json
import os
import sys
from functools import lru_cache
from typing import BinaryIO


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    # What libraries print must not get among the answers.
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        answer(answers, line)


def answer(out: BinaryIO, line: bytes) -> None:
    """Write the answer to one request."""
    try:
        picture = render(**json.loads(line))
    except Exception as error:  # noqa: BLE001 - whatever a data set raises is told, and the next one is tried
        out.write(json.dumps({"error": str(error) or type(error).__name__}).encode() + b"\n")
    else:
        out.write(json.dumps({"bytes": len(picture)}).encode() + b"\n" + picture)
    out.flush()


def render(cache: str, data: str, row: int, view: int) -> bytes:
    """A view of a row of the cache at a location, as a PNG.

    Raises :class:`DataError` for a sample that is not in the data set or changed, :class:`ConfigError` for
    data that cannot be opened and where torch is missing.
    """
    from cache_builder.format.errors import ConfigError

    try:
        return _Renderer.of(cache, data).picture(row, view)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"pictures need {error.name} beside the server: pip install 'kdcache[server,build]'"
        ) from error


class _Renderer:
    """Renders views of one cache from one data set."""

    def __init__(self, location: str, data: str) -> None:
        from cache_builder.datasets import open_source
        from cache_builder.format.reader import open_cache
        from cache_builder.look.images import Images
        from cache_builder.views.replay import Replay

        cache = open_cache(location)
        self._images = Images(cache, open_source(data, cache.manifest.input.decoding))
        self._replay = Replay.of(cache.manifest)

    @staticmethod
    @lru_cache(maxsize=8)
    def of(location: str, data: str) -> _Renderer:
        """The same one for the same cache and data."""
        return _Renderer(location, data)

    def picture(self, row: int, view: int) -> bytes:
        """A view as a PNG; :class:`DataError` for a row that the builder could not read."""
        from torchvision.io import encode_png

        from cache_builder.format.errors import DataError

        (rendered,) = self._replay.batch([(row, view)], self._images.read)
        if rendered.image is None:
            raise DataError("this sample could not be read when the cache was built")
        return bytes(encode_png(rendered.image.contiguous()).numpy().tobytes())


if __name__ == "__main__":
    main()
