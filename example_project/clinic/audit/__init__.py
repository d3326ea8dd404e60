"""A trail of every health and patient event, written in batches."""
