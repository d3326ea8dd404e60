"""The consumer with a small channel: slow it drops, flaky it retries and gives up."""

from __future__ import annotations

import random
import time

from django.conf import settings

from clinic.laboratory.models import Analysis, Switch
from clinic.records.events import HealthRecordSaved
from django_gomq import Message, Retry, consumer


class AnalyserJammedError(Exception):
    """The analyser is flaky, as its switch says: another attempt may work."""


@consumer(
    HealthRecordSaved,
    name="laboratory.analysis",
    retry=Retry(attempts=3, min_delay=0.1, max_delay=0.5),
    concurrency=2,
    capacity=100,
    severity="critical",
)
def analyse(message: Message[HealthRecordSaved]) -> None:
    """Analyse one record, once however often this runs."""
    _use_analyser(Switch.current())
    Analysis.objects.get_or_create(
        message_id=str(message.id),
        defaults={"record_id": message.data.record_id, "attempt": message.attempt},
    )


def _use_analyser(mode: str) -> None:
    # Before any row is written and outside of any transaction: neither a slow nor a
    # failing analyser may hold the one write lock of an SQLite file.
    if mode == Switch.Mode.SLOW:
        time.sleep(settings.LABORATORY_SLOW_SECONDS)
    if mode == Switch.Mode.FLAKY and random.random() < settings.LABORATORY_FAILURE_RATE:
        raise AnalyserJammedError
