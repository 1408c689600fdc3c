"""A server of caches, for programs that are no training: lists, records, samples, whole views."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from cache_builder.client.connection import PATIENCE_S, Connection
from cache_builder.client.documents import CacheEntries, CacheEntry, Readiness
from cache_builder.client.download import download
from cache_builder.client.remote_cache import RemoteCache
from cache_builder.client.selection import check_view, checked_rows
from cache_builder.format.codecs import Ranked, open_codec
from cache_builder.format.errors import ConfigError, ServerError
from cache_builder.format.layout import codec_path
from cache_builder.format.manifest import LOGITS, Manifest
from cache_builder.format.wire import CACHES_PATH, EXAMPLE_URL, cache_path


class Client:
    """A server, or one cache of it. Every method may be called from several threads.

    Connections are kept and used again; requests are patient, checked and never change anything: see
    :class:`Connection`, which also says when proxies are used. Close it, or use it in a ``with``.
    """

    def __init__(self, url: str, *, token: str | None = None, patience_s: float = PATIENCE_S) -> None:
        """``url``: of a server (``http://host:8000``) or of one cache (``…/v1/caches/NAME``).

        ``token``: by default the environment's ``KDCACHE_TOKEN``. ``patience_s``: seconds that a server may
        be away before a request gives up.
        """
        base, self._name = _split(url)
        self._server = Connection(base, token, patience_s)
        self._caches: dict[str, RemoteCache] = {}
        self._codecs: dict[str, Ranked[Any]] = {}

    def ready(self) -> Readiness:
        """Whether the server can serve records now: one look, without patience."""
        try:
            response = self._server.once("/readyz")
        except ServerError as error:
            return Readiness(False, str(error))
        if response.status_code == HTTPStatus.OK:
            return Readiness(True, "")
        return Readiness(False, f"HTTP {response.status_code}: {response.text[:500]}")

    def caches(self) -> list[CacheEntry]:
        """Every cache that the token sees."""
        response = self._server.request("GET", CACHES_PATH)
        try:
            return CacheEntries.model_validate_json(response.content).caches
        except ValidationError as error:
            raise ServerError(f"{response.url} is no list of caches of a kdcache server: {error}") from error

    def cache(self, name: str | None = None) -> RemoteCache:
        """A cache by its name or cache_id; by default the one of the URL, or the only one of the server."""
        name = name or self._name or self._only()
        if name not in self._caches:
            self._caches[name] = RemoteCache(self._server.below(cache_path(name)))
        return self._caches[name]

    def manifest(self, cache: str | None = None) -> Manifest:
        """The manifest of a cache."""
        return self.cache(cache).manifest()

    def records(
        self,
        rows: ArrayLike | None = None,
        *,
        ids: Sequence[str] | None = None,
        views: Sequence[int] = (0,),
        raw: bool = False,
        cache: str | None = None,
    ) -> dict[str, NDArray[Any]]:
        """What the teacher said about samples, by row or by id, in some views.

        ``logits``: float32 [views, n, classes], NaN of a sample that the builder could not read; with
        ``raw``, ``records`` instead: uint8 [views, n, record_bytes] as they are stored. ``counts``: int64
        [asked samples], how many of the n each of them has: one, unless samples have several positions.
        Raises :class:`DataError` for rows and views that the cache does not have, and :class:`ServerError`
        for ids that it does not have.
        """
        found = self.cache(cache)
        manifest = found.manifest()
        if not len(views):
            raise ConfigError("give at least one view")
        for view in views:
            check_view(manifest, view)
        if ids is not None and rows is None:
            answers = [found.records_of_ids(view, list(ids)) for view in views]
            records, counts = [answer[0] for answer in answers], answers[0][1]
        elif rows is not None and ids is None:
            wanted = checked_rows(manifest, rows)
            records, counts = (
                [found.records(view, wanted) for view in views],
                found.positions().counts(wanted),
            )
        else:
            raise ConfigError("give either rows or ids")
        if raw:
            return {"records": np.stack(records), "counts": counts}
        codec = self._codec(found)
        logits = [np.asarray(codec.decode(codec.unpack(of_view))) for of_view in records]
        return {"logits": np.stack(logits), "counts": counts}

    def sample(
        self, sample_id: str, view: int = 0, top: int | None = None, cache: str | None = None
    ) -> dict[str, Any]:
        """One sample in words: its row, its label, and the largest classes with names and probabilities."""
        asked: dict[str, Any] = {"id": sample_id, "view": view} | ({} if top is None else {"top": top})
        response = self.cache(cache).connection.request("GET", "/samples", params=asked)
        try:
            found: dict[str, Any] = response.json()
        except (ValueError, RecursionError) as error:
            raise ServerError(f"{response.url} did not answer with a sample: {error}") from error
        return found

    def download_view(self, view: int, path: str | Path, cache: str | None = None) -> Path:
        """All records of a view as a file; a download that broke off goes on where it was.

        The bytes stand in ``PATH.part`` until all are there and their checksum is right.
        """
        found = self.cache(cache)
        found.manifest()
        return download(found.connection, f"/views/{view}/records", Path(path))

    def close(self) -> None:
        """Drop the connections; waiting requests end with an error."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _only(self) -> str:
        names = [entry.name for entry in self.caches()]
        if len(names) != 1:
            raise ConfigError(
                f"{self._server.location} serves {len(names)} caches ({', '.join(names) or 'none'}): name "
                f"one with cache=, or in the URL ({EXAMPLE_URL})"
            )
        return names[0]

    def _codec(self, cache: RemoteCache) -> Ranked[Any]:
        manifest = cache.manifest()
        if cache.location not in self._codecs:
            self._codecs[cache.location] = open_codec(
                manifest.codec, manifest.classes, lambda name: cache.array(codec_path(manifest, LOGITS, name))
            )
        return self._codecs[cache.location]


def _split(url: str) -> tuple[str, str | None]:
    """The URL of the server, and the name of the cache where the URL is of one."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url} is not the URL of a server: it should look like {EXAMPLE_URL}")
    before, found, name = parts.path.rstrip("/").partition(f"{CACHES_PATH}/")
    if found and "/" in name:
        raise ConfigError(f"{url} is not the URL of a cache: it should look like {EXAMPLE_URL}")
    base = urlunsplit((parts.scheme, parts.netloc, before.removesuffix(CACHES_PATH), "", ""))
    return base, unquote(name) or None
