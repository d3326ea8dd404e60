"""Cases of this project; each uses its public names alone."""
