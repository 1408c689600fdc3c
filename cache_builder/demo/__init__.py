"""``kdcache demo``: the whole job on real handwritten digits."""
