"""Backends, one file each; loaded by dotted path."""
