"""Bearer tokens: what each of them may do, hashed in a file that is read again when it changes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from cache_builder.format.errors import ConfigError
from cache_builder.format.frozen import Frozen
from logit_server.background import meanwhile
from logit_server.private_folder import make_private
from logit_server.sources import near, read_toml

WATCH_S = 1.0
"""Seconds between two looks at the file of tokens."""

logger = logging.getLogger("logit_server")

_PREFIX = "sha256:"
_KEPT = "tokens.toml"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Scope(StrEnum):
    """What a token may be good for."""

    READ = "read"
    METRICS = "metrics"
    ADMIN = "admin"


class Token(Frozen):
    """One token. Random tokens need no slow hash: nobody finds 256 bits by trying."""

    hash: Annotated[str, StringConstraints(pattern=rf"^{_PREFIX}[0-9a-f]{{64}}$")]
    """``sha256:`` and 64 hex digits."""
    caches: frozenset[str] | None = None
    """Names or ids of the only caches that it sees; null = every one."""
    scopes: Annotated[frozenset[Scope], Field(min_length=1)] = frozenset({Scope.READ})
    """What it may ask for."""


def new_token(name: str) -> tuple[str, str]:
    """A random token, and its line for the file of tokens."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--new-token {name!r}: the name of a token is made of letters, digits, - and _")
    token = f"kdc_{secrets.token_urlsafe(32)}"
    return token, line_of(name, Token(hash=hash_of(token.encode())))


def line_of(name: str, token: Token) -> str:
    """A token as a line of the file of tokens. JSON's strings and lists are those of TOML."""
    key = name if _NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    seen = (
        "" if token.caches is None else f", caches = {json.dumps(sorted(token.caches), ensure_ascii=False)}"
    )
    return f'{key} = {{ hash = "{token.hash}", scopes = {json.dumps(sorted(token.scopes))}{seen} }}'


def hash_of(token: bytes) -> str:
    """A token as it is kept."""
    return _PREFIX + hashlib.sha256(token).hexdigest()


def token_of_everything(token: str) -> Token:
    """The token of ``KDCACHE_TOKEN``."""
    return Token(hash=hash_of(token.encode()), scopes=frozenset(Scope))


def read_tokens(path: Path) -> dict[str, Token]:
    """The tokens of a file by name; :class:`ConfigError` for a file without any and for what is wrong."""
    found = read_toml(path, "the file of tokens")
    tokens = {name: _parsed(path, name, value) for name, value in found.items()}
    if not tokens:
        raise ConfigError(
            f"the file of tokens, {path}, holds none; `kdcache serve --new-token NAME` makes one"
        )
    if len({token.hash for token in tokens.values()}) < len(tokens):
        raise ConfigError(
            f"the file of tokens, {path}, has one hash under two names: give each its own token"
        )
    return tokens


def _parsed(path: Path, name: str, value: object) -> Token:
    try:
        return Token.model_validate(value)
    except ValidationError as error:
        item = error.errors()[0]
        where = ".".join(map(str, item["loc"])) or "the whole"
        # What was found is not shown: somebody may have written the token itself there.
        offer = near(where, Token.model_fields) if item["type"] == "extra_forbidden" else ""
        raise ConfigError(
            f"the file of tokens, {path}: {where} of {name!r}: {item['msg']}{offer}; expected a line such as "
            f'{name} = {{ hash = "{_PREFIX}…", scopes = ["read"], caches = ["vit_l"] }}'
        ) from None


class TokenBook:
    """The tokens that are good just now."""

    def __init__(self, token: str | None, file: Path | None, folder: Path | None = None) -> None:
        """``token``: one that may do everything. ``folder``: of the run, shared by its workers.

        Raises :class:`ConfigError` for a file that is not right, unless another worker has kept good tokens.
        """
        self._always = {} if token is None else {"KDCACHE_TOKEN": token_of_everything(token)}
        self._file = file
        self._kept = folder and folder / _KEPT
        self._seen = b"" if file is None else _content(file)
        self._tokens: Mapping[str, Token] = self._always if file is None else self._at_start(file)

    @property
    def is_empty(self) -> bool:
        """Whether there are no tokens, so that everybody is answered."""
        return not self._tokens

    def find(self, given: bytes) -> Token | None:
        """The token that was given; all are compared, so that the time tells nothing."""
        hashed, found = hash_of(given), None
        for token in self._tokens.values():
            if hmac.compare_digest(hashed, token.hash):
                found = token
        return found

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Read the file again whenever it has changed, for as long as the context lasts."""
        async with meanwhile(self.watch()):
            yield

    async def watch(self) -> None:
        """Read the file again whenever it has changed, for ever."""
        while self._file is not None:
            await asyncio.sleep(WATCH_S)
            try:
                await asyncio.to_thread(self.look_again, self._file)
            except Exception:  # a watch that ended would keep withdrawn tokens valid
                logger.exception("the file of tokens, %s, could not be read again", self._file)

    def reread(self) -> None:
        """Read the file again at once, if it has changed."""
        if self._file is not None:
            self.look_again(self._file)

    def look_again(self, file: Path) -> None:
        """Take the tokens of the file, if it has changed; where it is not right, the old ones stay good."""
        content = _content(file)
        if content == self._seen:
            return
        self._seen = content
        try:
            self._tokens = self._taken(file)
        except ConfigError as error:
            logger.error("%s; the tokens of before stay valid", error)
        else:
            logger.info("the file of tokens was read again: %s", ", ".join(sorted(self._tokens)))

    def _at_start(self, file: Path) -> dict[str, Token]:
        try:
            return self._taken(file)
        except ConfigError as error:
            if self._kept is None or not self._kept.exists():
                raise
            # A worker that takes the place of one that died must not end the whole server.
            logger.error("%s; the tokens of before stay valid", error)
            return read_tokens(self._kept) | self._always

    def _taken(self, file: Path) -> dict[str, Token]:
        """The tokens of the file, kept for workers that start while it is not right."""
        tokens = read_tokens(file)
        if self._kept is not None:
            try:
                self._keep(self._kept, tokens)
            except OSError as error:
                # Tokens hold where they cannot be kept, and those of before, which may be withdrawn, do not.
                logger.warning("tokens cannot be kept for workers that start later: %s", error)
                with contextlib.suppress(OSError):
                    self._kept.unlink(missing_ok=True)
        return tokens | self._always

    @staticmethod
    def _keep(kept: Path, tokens: Mapping[str, Token]) -> None:
        make_private(kept.parent)
        making = kept.with_suffix(f".{os.getpid()}")
        try:
            making.write_text("".join(f"{line_of(*item)}\n" for item in tokens.items()), "utf-8")
            making.replace(kept)
        finally:
            making.unlink(missing_ok=True)


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None
