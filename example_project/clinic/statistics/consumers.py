"""Consumers that count; they know the events and not who emits them.

None of them has a Retry: adding one again would count twice, and a count that misses
one event after an error is better than one that is wrong without an error. Where its
events are kept in the database, a worker that is killed may count the last ones twice.
"""

from __future__ import annotations

from typing import Any

from clinic.records.events import HealthRecordSaved
from clinic.statistics.models import Count
from django_gomq import Message, consumer


@consumer(HealthRecordSaved, name="statistics.records", concurrency=2)
def count_record(message: Message[HealthRecordSaved]) -> None:
    """Count saved records by their kind."""
    Count.objects.add("statistics.records", message.data.kind)


@consumer("page.viewed", name="statistics.pages")
def count_page(message: Message[Any]) -> None:
    """Count how often each page was shown."""
    Count.objects.add("statistics.pages", message.data["page"])


@consumer("patient.created", "patient.deleted", name="statistics.patients")
class CountPatients:
    """Count patients who came and who left."""

    def handle(self, message: Message[Any]) -> None:
        """Count one event under its own type."""
        Count.objects.add("statistics.patients", message.type)
