"""Measurements: every figure is a ratio taken in one run, kept with its hardware and date."""
