"""``kdcache verify``: is a cache whole, is it of this data set, is it what this teacher says."""
