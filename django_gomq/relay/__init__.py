"""Forwards events from a database, where they were committed, to their server."""
