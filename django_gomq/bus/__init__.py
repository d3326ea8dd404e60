"""The event bus in pure Python."""
