"""The scripts, styles and libraries of the pages, from the package."""

from __future__ import annotations

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from logit_server.web.html import STATIC
from logit_server.wire import check_query_keys, parse_query

_VENDOR = "vendor/"
_YEAR = "public, max-age=31536000, immutable"


class PackageFiles(StaticFiles):
    """Files of the package. Libraries have their version in the path and may be kept for ever."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, with headers; :class:`RequestError` for a query, which no file takes."""
        check_query_keys(parse_query(scope["query_string"]), ())
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = _YEAR if path.startswith(_VENDOR) else "no-cache"
        return response
