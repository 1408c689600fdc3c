"""``kdcache inspect``: what a cache holds, in words and as a picture."""
