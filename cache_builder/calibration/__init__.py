"""Choosing and fitting a cache's codec on some of the teacher's own outputs."""
