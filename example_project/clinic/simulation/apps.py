"""The simulation app: an app only to bring its command."""

from __future__ import annotations

from django.apps import AppConfig


class SimulationConfig(AppConfig):
    """Traffic for the clinic."""

    name = "clinic.simulation"
