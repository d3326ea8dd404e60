"""What users declare, looked at when it is declared: handlers and Event classes."""
