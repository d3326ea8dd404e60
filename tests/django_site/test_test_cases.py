from __future__ import annotations

import threading

import pytest
from django.db import transaction
from django.test import TestCase, TransactionTestCase

from django_gomq import emit, get_broker
from django_gomq.testing import CapturedEvents, capture
from tests.django_site.clinic.events import RecordSaved
from tests.django_site.clinic.models import Record
from tests.django_site.handlers import Undo


class InATestCase(TestCase):
    data_events: CapturedEvents

    @classmethod
    def setUpTestData(cls) -> None:
        with capture() as cls.data_events, transaction.atomic():
            emit("clinic.visit.made", "set up")

    def test_what_test_data_emits_is_captured_as_committed(self) -> None:
        assert [message.data for message in self.data_events] == ["set up"]

    def test_the_tests_own_transaction_is_none(self) -> None:
        with capture() as events:
            receipt = emit("clinic.visit.made", 1)

            assert receipt.state == "accepted"
            assert [message.data for message in events] == [1]

    def test_an_event_appears_when_the_outermost_block_is_left(self) -> None:
        with capture() as events:
            with transaction.atomic():
                with transaction.atomic():
                    receipt = emit("clinic.visit.made", 1)
                within = len(events), receipt.state

            assert within == (0, "pending")
            assert receipt.state == "accepted"
            events.assert_emitted("clinic.visit.made", count=1)

    def test_a_rollback_inside_the_test_takes_events_back(self) -> None:
        with capture() as events:
            emit("clinic.visit.made", "before")
            with pytest.raises(Undo), transaction.atomic():
                receipt = emit("clinic.visit.made", "lost")
                raise Undo
            with transaction.atomic():
                emit("clinic.visit.made", "kept")
                with pytest.raises(Undo), transaction.atomic():
                    emit("clinic.visit.made", "lost too")
                    raise Undo

        assert [message.data for message in events] == ["before", "kept"]
        assert (receipt.state, receipt.reason) == ("refused", "rolled_back")

    def test_what_was_forgotten_is_not_missed_at_a_rollback(self) -> None:
        with capture() as events:
            with pytest.raises(Undo), transaction.atomic():
                emit("clinic.visit.made", 1)
                events.clear()
                raise Undo
            emit("clinic.visit.made", 2)

        assert [message.data for message in events] == [2]

    def test_on_commit_false_is_never_taken_back(self) -> None:
        with capture() as events, pytest.raises(Undo), transaction.atomic():
            emit("clinic.visit.made", 1, on_commit=False)
            within = len(events)
            raise Undo

        assert (within, len(events)) == (1, 1)

    def test_emitting_makes_no_query_and_starts_no_thread(self) -> None:
        threads = set(threading.enumerate())

        with capture(), self.assertNumQueries(0):
            emit("clinic.visit.made", 1, delay=10)
            with capture():
                emit(RecordSaved(record_id=1))

        assert set(threading.enumerate()) <= threads
        assert not get_broker().is_started

    def test_without_a_capture_nothing_is_published_either(self) -> None:
        threads = set(threading.enumerate())

        receipt = emit("clinic.visit.made", 1)

        assert receipt
        assert set(threading.enumerate()) <= threads
        assert not get_broker().is_started


class InATestCaseOfTwoDatabases(TestCase):
    databases = {"default", "other"}  # noqa: RUF012 - Django's way to say it

    def test_the_blocks_of_the_test_are_not_several_transactions(self) -> None:
        with capture() as events:
            emit("clinic.visit.made", 1)
            with transaction.atomic(using="other"):
                emit("clinic.visit.made", 2)

        assert [message.data for message in events] == [1, 2]

    def test_an_event_counts_once_the_last_block_of_several_is_left(self) -> None:
        with capture() as events, transaction.atomic():
            with transaction.atomic(using="other"):
                kept = emit("clinic.visit.made", "kept")
            within = len(events), kept.state
            with pytest.raises(Undo), transaction.atomic(using="other"):
                lost = emit("clinic.visit.made", "lost")
                raise Undo

        assert within == (0, "pending")
        assert [message.data for message in events] == ["kept"]
        assert (kept.state, lost.reason) == ("accepted", "rolled_back")


class InATransactionTestCase(TransactionTestCase):
    def test_a_real_commit_and_a_real_rollback_count(self) -> None:
        with capture() as events:
            with transaction.atomic():
                kept = emit("clinic.visit.made", "kept")
                within = len(events), kept.state
            with pytest.raises(Undo), transaction.atomic():
                lost = emit("clinic.visit.made", "lost")
                raise Undo

        assert within == (0, "pending")
        assert [message.data for message in events] == ["kept"]
        assert (kept.state, lost.reason) == ("accepted", "rolled_back")

    def test_a_failed_save_emits_nothing(self) -> None:
        with capture() as events, pytest.raises(Undo), transaction.atomic():
            Record.objects.create(patient_id=1)
            emit("clinic.visit.made")
            raise Undo

        assert not events
        assert not Record.objects.exists()
