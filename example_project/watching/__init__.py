"""Prometheus and Alertmanager beside the clinic."""
