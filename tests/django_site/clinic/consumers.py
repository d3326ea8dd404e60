from __future__ import annotations

from typing import Any

from django_gomq import Message, consumer
from tests.django_site.clinic.events import RecordSaved


@consumer(RecordSaved, name="clinic.statistics")
def count(message: Message[RecordSaved]) -> None:
    """Read the data, as any handler would."""
    assert message.data.record_id > 0


@consumer("clinic.visit.*")
def audit(message: Message[Any]) -> None:
    """Be there; the name is a default."""
