"""The teacher of a training: its records from a server, a folder or an object store."""
