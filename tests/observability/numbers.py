"""Reads one number, or a sum of them, off a page of metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from django_gomq.observability.metrics import render


class Page:
    """One scrape; asked by metric name without the prefix, and by labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = render("", registry=registry)[0].decode()
        self._samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    @property
    def all(self) -> dict[str, float]:
        """Return the value of every series, by name and labels."""
        return {_name_of(one): one.value for one in self._samples}

    def values(self, name: str, **labels: str) -> list[float]:
        """Return the values of the series that have these labels."""
        return [
            sample.value
            for sample in self._samples
            if sample.name == f"gomq_{name}" and labels.items() <= sample.labels.items()
        ]

    def sum(self, name: str, **labels: str) -> int:
        """Return the sum over the series that have these labels; there must be one."""
        values = self.values(name, **labels)
        assert values, f"no series {name} {labels}"
        return int(sum(values))

    def labels(self, name: str, label: str) -> set[str]:
        """Return all values of one label."""
        return {
            sample.labels[label]
            for sample in self._samples
            if sample.name == f"gomq_{name}"
        }


def _name_of(sample: Sample) -> str:
    labels = ",".join(f"{name}={sample.labels[name]}" for name in sorted(sample.labels))
    return f"{sample.name}{{{labels}}}"
