"""Prometheus and Alertmanager beside the clinic; it knows no event and no consumer."""
