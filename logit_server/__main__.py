"""``python -m logit_server``: serve what the ``KDCACHE_*`` variables of the environment say."""

from __future__ import annotations

import sys

from cache_builder.format import ConfigError, KDCacheError
from logit_server.printed_settings import described
from logit_server.run import serve
from logit_server.settings import Settings


def main(arguments: list[str]) -> int:
    """Serve until stopped; returns the exit code."""
    if arguments in (["-h"], ["--help"]):
        sys.stdout.write(
            f"usage: python -m logit_server, with settings from the environment:\n\n{described(Settings)}\n"
        )
        return 0
    try:
        if arguments:
            raise ConfigError(
                f"unexpected argument {arguments[0]!r}: this command takes its settings from KDCACHE_* "
                "variables (see --help); `kdcache serve CACHE` takes arguments"
            )
        serve(Settings.checked(), reread=Settings.checked)
    except KDCacheError as error:
        sys.stderr.write(f"kdcache: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
