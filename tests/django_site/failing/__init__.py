"""A site whose one consumer, in memory, fails until its folder has a file "mended"."""
