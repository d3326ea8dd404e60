"""The parts of a process that the bus lives in: its identity, timers, observers."""
