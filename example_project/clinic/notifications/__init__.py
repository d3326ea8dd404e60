"""Messages to patients, written by an async consumer; it knows events and no record."""
