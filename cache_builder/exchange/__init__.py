"""Caches into caches: merge parts, extend by views."""
