"""The data of events: to JSON and back, and what a foreign value is in JSON."""
