"""The process that a site runs in: what it is for, and how it ends."""
