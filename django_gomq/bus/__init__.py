"""The event bus in pure Python; it knows no Django and no client library."""
