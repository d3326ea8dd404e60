"""Who emits and who listens, from a site and from its source."""
