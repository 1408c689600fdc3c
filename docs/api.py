"""The API page, from the docstrings of the face: python docs/api.py FOLDER"""

import sys
from pathlib import Path

import pdoc

import kdcache


def main() -> None:
    """Write ``kdcache.html`` and an index."""
    for name in kdcache.__all__:  # names come on first use, and pdoc looks at those that are there
        setattr(kdcache, name, getattr(kdcache, name))
    pdoc.render.configure(docformat="restructuredtext", search=False)
    pdoc.pdoc("kdcache", output_directory=Path(sys.argv[1]))


if __name__ == "__main__":
    main()
