"""Events, names and functions that the sources of a test import; it emits nothing."""

from __future__ import annotations

import enum

from django.utils.functional import SimpleLazyObject

from django_gomq import Event, Receipt
from django_gomq import emit as send

__all__ = ["send"]

PAGE_VIEWED = "page.viewed"


class Names(enum.StrEnum):
    ORDER_PAID = "order.paid"


class RecordSaved(Event, type="listed.record.saved"):
    record_id: int = 0

    @classmethod
    def of(cls, record_id: int) -> Event:
        return cls(record_id=record_id)


class Base(Event):
    pass


SAVED = RecordSaved()


def make_saved() -> RecordSaved:
    return RecordSaved()


def make_any() -> Event:
    return RecordSaved()


def make_missing() -> Missing:  # type: ignore[name-defined]  # noqa: F821
    return None


def _wake() -> Receipt:
    raise AssertionError("the lazy object was asked")


lazy = SimpleLazyObject(_wake)
