"""Caches out of and into other forms: export and import."""
