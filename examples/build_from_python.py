"""Build a cache from Python, or continue one: python build_from_python.py TEACHER DATA_SPEC OUT"""

import sys

import kdcache

teacher, data, out = sys.argv[1:]
settings = kdcache.BuildSettings(teacher=teacher, data=data, out=out, views=2, input_size=32)
result = kdcache.build(settings)  # says nothing; raises what `kdcache build` would print
if result.statistics is not None:
    print("teacher top-1", result.statistics.top1)

cache = kdcache.open_cache(out)
records = cache.read_rows(view=1, rows=range(0, 8))  # uint8 [8, record_bytes]
print(cache.ids[0], cache.decode(records)[0])  # its logits, float32 [C]
