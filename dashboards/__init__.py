"""Boards for Grafana and rules for Prometheus, written as code.

``python -m dashboards`` writes what ships in ``django_gomq/dashboards``. It imports
Grafana's SDK, which users need not have, and nothing of django-gomq.
"""
