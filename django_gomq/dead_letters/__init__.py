"""The dead letters in the databases of brokers, for the command and for the admin."""
