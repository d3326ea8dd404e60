"""The sums on a metrics page, by what they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

_HELD: Final = (
    "gomq_channel_depth",
    "gomq_messages_scheduled",
    "gomq_messages_in_flight",
    "gomq_messages_spilled",
    "gomq_queue_depth",
    "gomq_messages_delayed",
)


@dataclass(frozen=True, slots=True)
class Books:
    """The numbers of one page."""

    values: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def sum(self, name: str, **labels: str) -> int:
        """Return the sum of a metric over all labels but these."""
        wanted = labels.items()
        return int(
            sum(
                value
                for (metric, having), value in self.values.items()
                if metric == f"gomq_{name}" and wanted <= having
            )
        )

    @property
    def held(self) -> int:
        """How many messages wait, are scheduled or are in work."""
        return int(
            sum(value for (name, _), value in self.values.items() if name in _HELD)
        )

    def ended(self, consumer: str) -> dict[str, int]:
        """Return what became of the messages of one consumer."""
        return {
            "succeeded": self.sum(
                "messages_processed_total", consumer=consumer, outcome="success"
            ),
            "dropped": self.sum("messages_dropped_total", consumer=consumer),
            "dead-lettered": self.sum(
                "messages_dead_lettered_total", consumer=consumer
            ),
        }


def read_books(page: str) -> Books:
    """Read a page in Prometheus' text format."""
    return Books(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }
    )
