"""Counts of what happened; it knows events and no record."""
