"""One look at /gomq/metrics; it knows the text format and no law."""

from __future__ import annotations

import http.client
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT = 30

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scrape:
    """The samples of one answer, by name."""

    samples: Mapping[str, tuple[tuple[Labels, float], ...]]

    def total(self, name: str, **labels: str) -> float:
        """Add up the samples of `name` that carry all of `labels`."""
        return math.fsum(value for _, value in self._matching(name, labels))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Add up the samples of `name` for each value of `label`."""
        sums: defaultdict[str, float] = defaultdict(float)
        for found, value in self._matching(name, labels):
            sums[found.get(label, "")] += value
        return dict(sums)

    def buckets(self, name: str, **labels: str) -> list[tuple[float, float]]:
        """Return the cumulative buckets of a histogram, by upper bound."""
        sums = self.by("le", f"{name}_bucket", **labels)
        return sorted((float(bound), count) for bound, count in sums.items())

    def _matching(self, name: str, labels: Labels) -> Iterator[tuple[Labels, float]]:
        for found, value in self.samples.get(name, ()):
            if labels.items() <= found.items():
                yield found, value


def parse(text: str) -> Scrape:
    """Read the text format of Prometheus."""
    samples: defaultdict[str, list[tuple[Labels, float]]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name].append((sample.labels, float(sample.value)))
    return Scrape({name: tuple(found) for name, found in samples.items()})


def fetch(*urls: str) -> Scrape:
    """Scrape the processes of a running clinic once, and take them together."""
    samples: defaultdict[str, tuple[tuple[Labels, float], ...]] = defaultdict(tuple)
    for url in urls:
        found = parse(get(url, "/gomq/metrics").decode()).samples
        for name, values in found.items():
            samples[name] += values
    return Scrape(dict(samples))


def get(url: str, path: str) -> bytes:
    """Get one path; anything but 200 is an OSError that says so."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=TIMEOUT
    )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise OSError(f"{path} answered {response.status}: {body[:200]!r}")
    return body


def union(*names: Iterable[str]) -> list[str]:
    """Return every name once, sorted."""
    return sorted(set().union(*names))
