"""Theme dead letter: what was given up is kept, and may be replayed or discarded."""

from __future__ import annotations

from typing import Any

import pytest

from django_gomq.bus.dead_letters import PAGE, Keeping
from django_gomq.bus.delivery import Reject
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry

from .site import CONSUMER, EVENT, Notes, Process, Site, wait_until


def fail(message: Message[Any]) -> None:
    raise ValueError(f"no {message.data}")


def wait_for_letters(process: Process, count: int) -> None:
    wait_until(lambda: len(process.broker.dead_letters()) == count)
    process.wait_until_quiet()


class DeadLetterTheme:
    """What was given up is kept, and may be replayed or discarded."""

    def test_a_dead_letter_says_what_happened(self, site: Site) -> None:
        process = site.process()
        again = Retry(attempts=2, min_delay=0, max_delay=0)
        process.consume(fail, retry=again)

        process.send(7, key="k")

        wait_for_letters(process, 1)
        (letter,) = process.broker.dead_letters()
        assert (letter.consumer, letter.attempt) == (CONSUMER, 2)
        assert letter.error == "ValueError: no 7"
        assert "in fail" in letter.traceback
        assert (letter.message.type, letter.message.key) == (EVENT, "k")
        assert letter.message.body == b"7"
        assert (letter.error_type, letter.broker) == (
            "ValueError",
            process.broker.alias,
        )
        assert process.stats().dead_lettered == 1

    def test_a_dead_letter_names_its_trace(self, site: Site) -> None:
        process = site.process()
        process.consume(fail)
        trace_id = "0af7651916cd43dd8448eb211c80319c"

        process.send(1, headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})

        wait_for_letters(process, 1)
        (letter,) = process.broker.dead_letters()
        assert letter.trace_id == trace_id

    def test_a_dead_letter_names_its_cause_when_it_is_replayed_too(
        self, site: Site
    ) -> None:
        def fail_first(message: Message[Any]) -> None:
            seen.append((message.causation_id, message.correlation_id))
            if len(seen) == 1:
                raise ValueError

        process, seen = site.process(), list[tuple[str | None, str | None]]()
        process.consume(fail_first)
        process.send(1, headers={"causationid": "a cause", "correlationid": "the 1st"})
        wait_for_letters(process, 1)
        (letter,) = process.broker.dead_letters()
        assert letter.message.causation_id == "a cause"
        if not site.keeps_dead_letters:
            return

        process.broker.replay([letter.id])

        wait_until(lambda: len(seen) == 2)
        assert seen == [("a cause", "the 1st")] * 2

    @pytest.mark.parametrize("ordered", [False, True])
    def test_a_dead_letter_tells_of_its_first_failure(
        self, site: Site, ordered: bool
    ) -> None:
        if ordered and not site.promises("ordered_by_key"):
            return
        retries_there = site.capabilities.delayed_retry and not ordered
        if retries_there and not site.promises("dead_letters"):
            return
        process = site.process()
        again = Retry(attempts=2, min_delay=0.2, max_delay=0.2, jitter=False)
        process.consume(fail, retry=again, ordered_by_key=ordered)

        process.send(1, key="k")

        wait_for_letters(process, 1)
        (letter,) = process.broker.dead_letters()
        assert letter.time - letter.first_failed >= 0.15

    def test_a_rejected_message_is_given_up_at_once(self, site: Site) -> None:
        def reject(message: Message[Any]) -> None:
            raise Reject("not mine")

        process, notes = site.process(), Notes(reject)
        process.consume(notes, retry=Retry(attempts=5))

        process.send(1)

        wait_for_letters(process, 1)
        assert notes.handled == [(1, 1)]
        assert process.broker.dead_letters()[0].error == "Reject: not mine"

    def test_dead_letters_are_listed_oldest_first(self, site: Site) -> None:
        process = site.process()
        process.consume(fail)

        process.send(*range(5), key="k")

        wait_for_letters(process, 5)
        letters = process.broker.dead_letters()
        assert [letter.message.data for letter in letters] == list(range(5))
        assert len({letter.id for letter in letters}) == 5

    def test_all_dead_letters_are_read_while_they_are_discarded(
        self, site: Site
    ) -> None:
        process, count = site.process(keeping=Keeping(most=3 * PAGE)), 2 * PAGE + 1
        process.consume(fail)
        process.send_many(range(count), key="k")
        wait_for_letters(process, count)

        found = []
        for letter in process.broker.iter_dead_letters():
            found.append(letter.message.data)
            process.broker.discard([letter.id])

        assert found == list(range(count))
        assert process.broker.dead_letters() == []

    def test_a_discarded_dead_letter_is_gone(self, site: Site) -> None:
        process = site.process()
        process.consume(fail)
        process.send(*range(3), key="k")
        wait_for_letters(process, 3)
        first, second, _ = process.broker.dead_letters()

        assert process.broker.discard([first.id, second.id, "no such id"]) == 2

        (left,) = process.broker.dead_letters()
        assert left.message.data == 2
        assert process.broker.discard([first.id]) == 0

    def test_a_replayed_dead_letter_is_handled_again(self, site: Site) -> None:
        def fail_first(message: Message[Any]) -> None:
            if len(notes.handled) <= 2:
                raise ValueError

        process, notes = site.process(), Notes(fail_first)
        process.consume(notes)
        process.send(1, 2, key="k")
        wait_for_letters(process, 2)
        first, second = process.broker.dead_letters()
        if not site.keeps_dead_letters:
            with site.refusal("replay of dead letters", ConfigurationError):
                process.broker.replay([first.id])
            assert len(process.broker.dead_letters()) == 2
            return

        assert process.broker.replay([second.id]) == 1

        wait_until(lambda: process.stats().succeeded == 1)
        assert notes.handled == [(1, 1), (2, 1), (2, 1)]
        assert [letter.id for letter in process.broker.dead_letters()] == [first.id]
        assert process.broker.replay([second.id]) == 0

    def test_dead_letters_are_seen_by_every_process(self, site: Site) -> None:
        if not site.promises("dead_letters"):
            return
        first, second = site.process(), site.process()
        first.consume(fail)
        first.send(1)
        wait_for_letters(first, 1)
        first.close()

        (letter,) = second.broker.dead_letters()

        assert letter.error == "ValueError: no 1"

    def test_a_process_keeps_the_latest_where_the_server_keeps_none(
        self, site: Site
    ) -> None:
        process = site.process(keeping=Keeping(most=2))
        process.consume(fail)

        process.send(*range(5), key="k")

        wait_until(lambda: process.stats().dead_lettered == 5)
        kept = [0, 1, 2, 3, 4] if site.capabilities.dead_letters else [3, 4]
        wait_for_letters(process, len(kept))
        letters = process.broker.dead_letters()
        assert [letter.message.data for letter in letters] == kept

    def test_what_kills_its_processes_is_given_up(self, site: Site) -> None:
        if not site.promises("counts_deliveries"):
            return
        for nth in range(site.capabilities.max_deliveries):
            victim, gate = site.process(), site.gate()
            victim.consume(gate)
            if nth == 0:
                victim.send(1)
            wait_until(lambda: gate.entered)  # noqa: B023 - it is called at once
            victim.cut()
            site.let_lease_end()
        last, notes = site.process(), Notes()

        last.consume(notes)

        wait_for_letters(last, 1)
        (letter,) = last.broker.dead_letters()
        assert "DeliveryLimitError" in letter.error
        assert notes.handled == []
        assert last.stats().dead_lettered == 1

    def test_what_cannot_be_decoded_is_kept_apart(self, site: Site) -> None:
        if not site.promises("settles"):
            return
        process, notes = site.process(), Notes()
        process.consume(notes)

        site.harness.put_garbage(EVENT)
        process.send(1)

        wait_until(lambda: notes.numbers == [1])
        wait_for_letters(process, 1)
        (letter,) = process.broker.dead_letters()
        assert letter.consumer == CONSUMER
        assert "DecodeError" in letter.error
        stats = process.stats()
        assert (stats.dead_lettered, stats.retries, stats.succeeded) == (1, 0, 1)
