"""``python -m logit_server``: serve what the ``KDCACHE_*`` variables of the environment say."""

from __future__ import annotations

import sys

from cache_builder.format import KDCacheError
from logit_server.run import serve
from logit_server.settings import Settings


def main() -> int:
    """Serve until stopped; returns the exit code."""
    try:
        serve(Settings.checked())
    except KDCacheError as error:
        sys.stderr.write(f"kdcache: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
