"""A training run: its configuration, its parts, the loop, its folder."""
