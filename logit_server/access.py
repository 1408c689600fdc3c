"""Who may ask for what: the token of a request, and the caches that it sees."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from starlette.types import Scope as RequestScope

from logit_server.admission import HEALTH_PATHS, METRICS_PATH
from logit_server.errors import ForbiddenError, UnauthorizedError
from logit_server.served_caches import Catalog
from logit_server.settings import Settings
from logit_server.tls import tls_arguments
from logit_server.tokens import Scope, Token, TokenBook

_NOTHING = Catalog([])


class Access:
    """Looks at the token of each request."""

    def __init__(self, settings: Settings, folder: Path | None = None) -> None:
        """``folder``: of the run, where its workers keep the tokens that were good last."""
        token = settings.token
        self.tokens = TokenBook(token.get_secret_value() if token else None, settings.tokens, folder)
        self._is_open = self.tokens.is_empty
        self._of: Catalog | None = None
        self._visible: dict[Token, Catalog] = {}

    def check(self, scope: RequestScope, catalog: Catalog) -> Catalog:
        """The caches of ``catalog`` that the sender of a request sees.

        Raises :class:`UnauthorizedError` without a token, :class:`ForbiddenError` for one of another scope.
        """
        if self._is_open:
            return catalog
        path: str = scope["path"]
        token = self._token_of(scope)
        if path in HEALTH_PATHS:
            return self._seen_by(token, catalog) if token and Scope.READ in token.scopes else _NOTHING
        if token is None:
            raise UnauthorizedError(
                "this server answers only with its token: send it as `Authorization: Bearer TOKEN` "
                "(kdtrain takes it from KDCACHE_TOKEN)"
            )
        needed = scope_of(path)
        if needed not in token.scopes:
            raise ForbiddenError(
                f"this token may not do that: the path needs a token of scope {needed}, and its scopes are "
                f"{', '.join(sorted(token.scopes))}"
            )
        return self._seen_by(token, catalog)

    def _token_of(self, scope: RequestScope) -> Token | None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() == b"basic":
            token = _password(token)
        elif scheme.lower() != b"bearer":
            return None
        return self.tokens.find(token.strip())

    def _seen_by(self, token: Token, catalog: Catalog) -> Catalog:
        if token.caches is None:
            return catalog
        if catalog is not self._of:
            self._of, self._visible = catalog, {}
        if token not in self._visible:
            self._visible[token] = catalog.only(token.caches)
        return self._visible[token]


def _password(credentials: bytes) -> bytes:
    """The password of Basic authentication (RFC 7617): browsers ask for one, and take no bearer token."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def check_access(settings: Settings, folder: Path) -> None:
    """Keep the tokens for the workers of a run, and look at the files of the certificate and its key.

    Raises :class:`ConfigError` for what is not right in them.
    """
    Access(settings, folder)
    tls_arguments(settings)


def scope_of(path: str) -> Scope:
    """What a token must be good for to be answered at a path."""
    if path == METRICS_PATH or path.startswith(f"{METRICS_PATH}/"):
        return Scope.METRICS
    if path == "/v1/admin" or path.startswith("/v1/admin/"):
        return Scope.ADMIN
    return Scope.READ
