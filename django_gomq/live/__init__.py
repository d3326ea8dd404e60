"""The live page: what the bus does now, for staff."""
