"""Cases that are measured at several sizes, to see what grows with what."""
