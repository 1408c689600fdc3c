"""Which methods a path takes, for ``Allow``: asked of the routes themselves, so that it is true."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import BaseRoute, Match, Mount

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_ON_ALL = "GET, HEAD, POST, OPTIONS"
"""What the server as a whole takes (``OPTIONS *``)."""


def allowed_methods(request: Request) -> str:
    """The methods of a request's path as ``Allow`` names them; empty where there is nothing at the path.

    Where GET is answered, so is HEAD, which the envelope routes as GET; OPTIONS is answered everywhere.
    """
    if request.scope["path"] == "*":
        return _ON_ALL
    if "app" not in request.scope:  # refused before the routes were looked at
        return ""
    found = [method for method in _METHODS if _takes(request, method)]
    if "GET" in found:
        found.insert(1, "HEAD")
    return ", ".join([*found, "OPTIONS"]) if found else ""


def _takes(request: Request, method: str) -> bool:
    root = request.scope.get("app_root_path", request.scope.get("root_path", ""))
    scope = {"type": "http", "path": request.scope["path"], "root_path": root, "method": method}
    routes: list[BaseRoute] = request.app.router.routes
    return any(_matches(route, scope) for route in routes)


def _matches(route: BaseRoute, scope: dict[str, str]) -> bool:
    if isinstance(route, Mount) and scope["method"] != "GET":
        return False  # files
    return route.matches(dict(scope))[0] is Match.FULL
