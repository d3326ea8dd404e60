"""What waits in front of the handlers of one consumer, and who may start."""
