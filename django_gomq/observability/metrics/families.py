"""The metrics of one scrape as the client library has them; they know no broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from .catalogue import About, Catalogue, Kind


class Families(Catalogue):
    """All metrics of one scrape, empty, as the client library has them."""

    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {}
        super().__init__(self._add)

    def _add(self, about: About) -> Metric:
        made = _FAMILIES[about.kind](about.name, about.text, labels=about.labels)
        self.by_name[about.name] = made
        return made

    def all(self) -> list[Metric]:
        """Return every family, in the order of the catalogue."""
        return list(self.by_name.values())


_FAMILIES: Final[Mapping[Kind, Callable[..., Metric]]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
