"""Samples of a metrics page, added up, and what their buckets tell."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.metrics_core import Metric

from .catalogue import PREFIX

Key = tuple[str, str]
"""Broker, and consumer or event."""
Samples = Sequence[tuple[Mapping[str, str], float]]


class SampleTable:
    """Samples by the name of their series, to be added up."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._samples: dict[str, list[tuple[Mapping[str, str], float]]]
        self._samples = defaultdict(list)
        for metric in metrics:
            for sample in metric.samples:
                if sample.name.startswith(PREFIX):
                    name = sample.name.removeprefix(PREFIX)
                    self._samples[name].append((sample.labels, sample.value))

    def of(self, name: str) -> Samples:
        """Return the samples of a series."""
        return self._samples.get(name, ())

    def total(self, name: str) -> int:
        """Return the sum of all samples of a series."""
        return int(sum(value for _, value in self.of(name)))

    def greatest(self, name: str) -> float:
        """Return the greatest of them, 0 without one."""
        return max((value for _, value in self.of(name)), default=0.0)

    def sums(self, name: str, subject: str) -> Mapping[Key, int]:
        """Return the sums by broker and ``subject``, "consumer" or "event"."""
        found: Counter[Key] = Counter()
        for labels, value in self.of(name):
            found[key_in(labels, subject)] += int(value)
        return found

    def greatest_by(self, name: str, subject: str) -> Mapping[Key, float]:
        """Return the greatest value of each."""
        found: dict[Key, float] = {}
        for labels, value in self.of(name):
            key = key_in(labels, subject)
            found[key] = max(value, found.get(key, value))
        return found

    def split(self, name: str, subject: str, by: str) -> Mapping[Key, Counter[str]]:
        """Return the sums of each, by another label."""
        found: dict[Key, Counter[str]] = defaultdict(Counter)
        for labels, value in self.of(name):
            found[key_in(labels, subject)][labels.get(by, "")] += int(value)
        return found

    def buckets(self, name: str) -> Mapping[Key, Sequence[tuple[float, int]]]:
        """Return, by consumer, the bounds of a histogram with cumulative counts."""
        found: dict[Key, Counter[float]] = defaultdict(Counter)
        for labels, value in self.of(f"{name}_bucket"):
            found[key_in(labels, "consumer")][float(labels["le"])] += int(value)
        return {key: sorted(counts.items()) for key, counts in found.items()}


def key_in(labels: Mapping[str, str], subject: str) -> Key:
    """Return the broker, and the consumer or event, of these labels."""
    return labels.get("broker", ""), labels.get(subject, "")


def estimate(q: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """Return about the value that a share ``q`` of all observations is not above.

    ``buckets`` are pairs of upper bound and cumulative count, sorted, the last bound
    infinite. It takes observations to be spread inside a bucket as they are between
    buckets, which grow by factors; in the first, which begins at 0, evenly. Answers
    with the highest finite bound for what is above that. None without observations.
    """
    if len(buckets) < 2 or not math.isinf(buckets[-1][0]) or buckets[-1][1] <= 0:  # noqa: PLR2004 - one finite bucket and the infinite
        return None
    rank = q * buckets[-1][1]
    index = next(i for i, (_, count) in enumerate(buckets) if count >= rank)
    if index == len(buckets) - 1:
        return buckets[-2][0]
    lower, below = buckets[index - 1] if index else (0.0, 0.0)
    upper, count = buckets[index]
    if count == below:
        return upper
    part = (rank - below) / (count - below)
    return lower * (upper / lower) ** part if lower > 0 else upper * part
