"""From a waiting delivery to its settlement: threads, handlers, outcomes."""
