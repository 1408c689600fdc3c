"""Blocks of sealed caches on this machine's disk, so that what one process fetched is near for the others."""
