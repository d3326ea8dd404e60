"""Visitors of the clinic over HTTP: it counts answers and knows no model and no bus."""
