"""A small site whose handlers hang, fail and block when they are told to."""
