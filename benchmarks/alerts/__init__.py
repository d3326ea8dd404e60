"""Which alerts a site raises under trouble, and that it raises none without."""
