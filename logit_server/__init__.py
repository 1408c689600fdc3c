"""Serves caches over HTTP. Never imports torch."""
