"""One writer at a time: local locks, leases on object stores, and who holds them."""
