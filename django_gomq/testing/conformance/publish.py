"""Theme publish: what is taken, refused, or not answered."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from django_gomq.bus.errors import (
    BackendUnavailableError,
    BrokerClosedError,
    NoConsumerError,
    NotRunningError,
    PublishError,
    PublishUnknownError,
)
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry

from .site import EVENT, Notes, Process, Site, wait_until


class PublishTheme:
    """What is taken, refused, or not answered."""

    def test_each_consumer_gets_each_message_once(self, site: Site) -> None:
        process, notes, others = site.process(), Notes(), Notes()
        process.consume(notes, starts=False)
        process.consume(others, "suite.*", name="suite.audit")

        process.send_many(range(50))

        process.wait_until_quiet()
        wait_until(lambda: len(notes.handled) == len(others.handled) == 50)
        expected = [(number, 1) for number in range(50)]
        assert sorted(notes.handled) == sorted(others.handled) == expected

    def test_a_message_arrives_as_it_was_published(self, site: Site) -> None:
        process = site.process()
        seen: list[Message[Any]] = []
        process.consume(seen.append)
        key, headers = "50% ø\u200b\n", {"traceparent": "00-1-2-01", "tenant": "nørd"}
        sent: Message[Any] = Message(EVENT, b'{"a": [1]}', key=key, headers=headers)

        process.broker.publish(sent)

        wait_until(lambda: seen)
        (message,) = seen
        assert type(message.headers) is dict
        assert message.headers == headers
        assert (message.type, message.id, message.key) == (EVENT, sent.id, key)
        assert (message.data, message.body) == ({"a": [1]}, sent.body)
        assert message.made == pytest.approx(sent.made, abs=0.001)
        assert (message.priority, message.attempt) == (5, 1)

    def test_a_message_names_its_cause_at_every_attempt(self, site: Site) -> None:
        def fail_first(message: Message[Any]) -> None:
            seen.append((message.causation_id, message.correlation_id))
            if message.attempt == 1:
                raise ValueError

        process, seen = site.process(), list[tuple[str | None, str | None]]()
        again = Retry(attempts=2, min_delay=0.05, max_delay=0.05)
        process.consume(fail_first, retry=again)

        process.send(1, headers={"causationid": "a cause", "correlationid": "the 1st"})

        wait_until(lambda: len(seen) == 2)
        assert seen == [("a cause", "the 1st")] * 2

    def test_the_answers_of_a_batch_come_in_its_order(self, site: Site) -> None:
        process, notes = site.process(), Notes()
        process.consume(notes)
        messages: list[Message[Any]] = [
            Message(event, b"%d" % number)
            for number, event in enumerate((EVENT, "nobody.listens", EVENT))
        ]

        answers = process.broker.publish_many(messages)

        assert (answers[0], answers[2]) == (None, None)
        wait_until(lambda: len(notes.handled) == 2)
        assert sorted(notes.numbers) == [0, 2]
        if answers[1] is None:
            site.note_unpromised("to know of consumers")
        else:
            assert isinstance(answers[1], NoConsumerError)

    def test_what_nobody_consumes_is_refused_and_counted(self, site: Site) -> None:
        process = site.process()
        process.consume(print)
        try:
            process.send(1, type="nobody.listens")
        except NoConsumerError:
            assert process.broker.stats().queues["nobody.listens"].unconsumed == 1
        else:
            site.note_unpromised("to know of consumers")

    def test_a_closed_broker_refuses_and_counts(self, site: Site) -> None:
        process = site.process()
        process.consume(print)
        process.close()

        with pytest.raises(BrokerClosedError):
            process.send(1)

        refused = process.broker.stats().queues[EVENT].refused
        assert refused == {BrokerClosedError.code: 1}

    def test_a_process_may_publish_where_no_consumer_runs(self, site: Site) -> None:
        worker, notes = site.process(), Notes()
        worker.consume(notes, starts=False)
        web = site.process(may_start=lambda: False)
        web.consume(notes, starts=False)
        if not site.capabilities.durable:
            with site.refusal("publishing where nothing runs", NotRunningError):
                web.send(1)
            return

        web.send(1)
        web.send_many([2, 3])

        assert not web.broker.is_started
        assert web.calls.of("fetch") == []
        worker.broker.start()
        wait_until(lambda: sorted(notes.numbers) == [1, 2, 3])

    def test_a_handler_may_publish(self, site: Site) -> None:
        process, later = site.process(), Notes()

        def pass_on(message: Message[Any]) -> None:
            process.send(message.data + 1, type="suite.followed")
            site.harness.leave_thread()

        process.consume(pass_on, starts=False)
        process.consume(later, "suite.followed", name="suite.later")

        process.send(1)

        wait_until(lambda: later.numbers == [2])

    def test_many_threads_publish_and_nothing_is_lost(self, site: Site) -> None:
        process, notes = site.process(), Notes()
        process.consume(notes)
        runs = [range(100 * nth, 100 * nth + 50) for nth in range(4)]

        threads = [site.in_thread(partial(process.send, *run)) for run in runs]
        for thread in threads:
            thread.join()

        wait_until(lambda: len(notes.handled) == 200)
        process.wait_until_quiet()
        assert len(set(notes.numbers)) == process.stats().succeeded == 200

    # ------------------------------------------------------------ a server is away

    def test_while_the_server_is_away_a_publish_is_refused(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        process = site.process()
        process.consume(print)
        process.send(1)
        site.harness.stop_server()

        with pytest.raises(BackendUnavailableError):
            process.send(2)

        (answer,) = process.broker.publish_many([Message(EVENT)])
        assert isinstance(answer, BackendUnavailableError)
        refused = process.broker.stats().queues[EVENT].refused
        assert refused == {BackendUnavailableError.code: 2}

    def test_a_server_known_to_be_away_is_not_asked_each_time(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        process = site.process()
        process.consume(print)
        process.send(1)
        site.harness.stop_server()
        before = len(process.calls.of("publish"))

        refusals = [error for _ in range(200) for error in try_to_send(process)]

        assert len(refusals) == 200
        # Once, and again after pauses that grow from 0.05 to 2 seconds.
        assert len(process.calls.of("publish")) - before < 100

    def test_once_the_server_is_back_publishing_goes_on(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        process, notes = site.process(), Notes()
        process.consume(notes)
        site.harness.stop_server()
        assert try_to_send(process)

        site.harness.start_server()

        wait_until(lambda: not try_to_send(process))
        process.send(2, 3)  # nobody is kept from it any more
        wait_until(lambda: sorted(notes.numbers) == [1, 2, 3])

    def test_a_publish_without_an_answer_is_neither_taken_nor_refused(
        self, site: Site
    ) -> None:
        if not site.promises("durable"):
            return
        process, notes = site.process(), Notes()
        process.consume(notes)

        with site.harness.lose_answers(), pytest.raises(PublishUnknownError):
            process.send(1)

        queue = process.broker.stats().queues[EVENT]
        assert (queue.unknown, queue.refused) == (1, {})
        wait_until(lambda: not try_to_send(process))  # and nobody is kept from it


def try_to_send(process: Process) -> list[PublishError]:
    """Publish one message; return why it was refused, if it was."""
    try:
        process.send(1)
    except PublishError as error:
        return [error]
    return []
