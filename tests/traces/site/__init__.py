"""A site whose every request emits one event, with OpenTelemetry set up."""
