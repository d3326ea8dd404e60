"""Backends, one file each; loaded by dotted path, blind to one another."""
