"""``kdcache build --engine ray``: the row blocks of a build on the nodes of a Ray cluster.

Ray's core actors, not Ray Data: a tile is the unit of writing and its batches must meet in one process, in
their order, while ``map_batches`` deals batches to whichever actor is free, so that a tile would have to be
sorted together again. An actor that runs a whole row block with the builder's own :class:`TileRunner` gives
the bytes of a single process by construction, and whatever died is mended by giving the block to another one:
committed tiles are skipped, others are written anew.
"""
