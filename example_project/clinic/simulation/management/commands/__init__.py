"""Commands of the simulation, found by their names."""
