"""What the help of commands says of caches that lie elsewhere."""

OF_STORES = (
    "Caches may lie on object stores (`s3://`, `gs://`, `az://`) and be read from web servers (`https://`). "
    "A store that does not answer is waited for: `KDCACHE_STORE_PATIENCE_S` seconds (60; 15 where it never "
    "answered), and each request until nothing arrives for `KDCACHE_STORE_TIMEOUT_S` seconds (30). "
    "What was read of a finished one is kept on this machine for the next time: in the folder "
    "`KDCACHE_BLOCK_CACHE` (`~/.cache/kdcache/blocks`; `off` keeps nothing), up to "
    "`KDCACHE_BLOCK_CACHE_BYTES` (10GiB)."
)
