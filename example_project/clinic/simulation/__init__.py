"""Visitors of the clinic over HTTP."""
