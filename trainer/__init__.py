"""Trains students from a cache; usable from any training loop."""
