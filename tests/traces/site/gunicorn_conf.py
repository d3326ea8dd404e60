"""gunicorn's settings for it: exporters are made after the fork."""

from __future__ import annotations

preload_app = True


def post_fork(server: object, worker: object) -> None:
    """Set OpenTelemetry up in each worker; an exporter does not survive a fork."""
    from tests.traces.site.telemetry import configure

    configure()
