"""Caches out of and into other forms: export, import, merge, extend."""
