"""Theme order: messages of a key are handled one by one, as they were published."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from threading import Lock
from typing import Any
from unittest.mock import patch

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.message import Message
from django_gomq.bus.retry import Retry
from django_gomq.bus.worker import settlement_batcher

from .site import EVENT, Notes, Site, wait_until

AGAIN = Retry(attempts=3, min_delay=0.01, max_delay=0.01)


class Sequences:
    """A handler that keeps, for each key, what succeeded, and fails some at first."""

    def __init__(self, *, fails_each: int) -> None:
        self.by_key: dict[str, list[int]] = defaultdict(list)
        self.overlaps = 0
        self._fails_each = fails_each
        self._inside: Counter[str] = Counter()
        self._lock = Lock()

    def handle(self, message: Message[Any]) -> None:
        key = str(message.key)
        with self._lock:
            self._inside[key] += 1
            self.overlaps += self._inside[key] > 1
        try:
            if message.data % self._fails_each == 0 and message.attempt == 1:
                raise ValueError
            self.by_key[key].append(message.data)
        finally:
            with self._lock:
                self._inside[key] -= 1

    @property
    def count(self) -> int:
        return sum(map(len, self.by_key.values()))


class OrderTheme:
    """Messages of a key are handled one by one, as they were published."""

    def test_a_single_handler_sees_a_key_as_it_was_published(self, site: Site) -> None:
        process, notes = site.process(), Notes()
        process.consume(notes)

        process.send_many(range(50), key="k")
        process.send(*range(50, 60), key="k")

        wait_until(lambda: len(notes.handled) == 60)
        assert notes.numbers == list(range(60))

    def test_an_order_that_is_not_promised_is_refused(self, site: Site) -> None:
        process = site.process()
        if site.capabilities.ordered_by_key:
            process.consume(print, ordered_by_key=True)
            assert process.broker.is_started
            return

        with site.refusal("ordered_by_key", ConfigurationError):
            process.consume(print, ordered_by_key=True)

    def test_a_delay_or_a_priority_would_break_an_order(self, site: Site) -> None:
        if not site.promises("ordered_by_key"):
            return
        process = site.process()
        process.consume(print, ordered_by_key=True)

        for options in ({"delay": 1.0}, {"priority": 9}):
            with site.refusal("delay and priority of a key", Exception):
                process.send(1, key="k", **options)

        assert sum(process.stats().dispatched.values()) == 0

    def test_a_key_is_held_until_its_retries_have_ended(self, site: Site) -> None:
        if not site.promises("ordered_by_key"):
            return

        def fail_once(message: Message[Any]) -> None:
            if message.data == 1 and message.attempt == 1:
                raise ValueError

        process, notes = site.process(), Notes(fail_once)
        process.consume(notes, ordered_by_key=True, retry=AGAIN, concurrency=4)

        process.send_many([1, 2, 3], key="k")

        wait_until(lambda: len(notes.handled) == 4)
        assert notes.handled == [(1, 1), (1, 2), (2, 1), (3, 1)]

    def test_a_dead_letter_lets_its_key_go(self, site: Site) -> None:
        if not site.promises("ordered_by_key"):
            return

        def fail_first(message: Message[Any]) -> None:
            if message.data == 1:
                raise ValueError

        process, notes = site.process(), Notes(fail_first)
        process.consume(notes, ordered_by_key=True, retry=AGAIN)

        process.send_many([1, 2], key="k")

        wait_until(lambda: len(notes.handled) == 4)
        assert notes.handled == [(1, 1), (1, 2), (1, 3), (2, 1)]
        wait_until(lambda: process.stats().dead_lettered == 1)

    def test_other_keys_go_on_while_one_waits_for_its_retry(self, site: Site) -> None:
        if not site.promises("ordered_by_key"):
            return

        def fail_slowly(message: Message[Any]) -> None:
            if message.key == "bad":
                time.sleep(0.6)  # so that little is fetched ahead
                raise ValueError

        process, notes = site.process(), Notes(fail_slowly)
        never = Retry(min_delay=600, max_delay=600)
        process.consume(notes, ordered_by_key=True, retry=never)

        process.send(*range(1, 9), key="bad")
        process.send(*range(9, 13), key="good")

        wait_until(lambda: process.stats().succeeded == 4)
        assert sorted(notes.numbers) == [1, 9, 10, 11, 12]

    def test_a_backend_is_told_which_keys_are_held(self, site: Site) -> None:
        if not (site.promises("ordered_by_key") and site.promises("settles")):
            return
        busy: set[str] = set()

        def look(name: str, given: Sequence[Any]) -> None:
            if name == "fetch":
                busy.update(*(want.busy_keys for want in given[0]))

        process, gate = site.process(), site.gate(1)
        process.consume(gate, ordered_by_key=True, concurrency=2, starts=False)
        process.calls.before = look
        process.broker.start()

        process.send(1, key="held")

        wait_until(lambda: busy == {"held"})

    def test_a_key_does_not_wait_for_a_batch_to_fill(self, site: Site) -> None:
        if not site.promises("ordered_by_key"):
            return
        process, notes = site.process(), Notes()
        process.consume(notes, ordered_by_key=True)

        # A key holds up for the server's answer to its settlement, and for that only.
        with patch.object(settlement_batcher, "BATCH_SECONDS", 3600.0):
            process.send_many(range(20), key="k")

            wait_until(lambda: len(notes.handled) == 20)

    def test_keys_keep_their_order_over_two_processes(self, site: Site) -> None:
        if not site.promises("ordered_by_key"):
            return
        sequences = Sequences(fails_each=5)
        processes = [site.process()]
        if site.capabilities.durable:
            processes.append(site.process())
        for process in processes:
            process.consume(sequences, ordered_by_key=True, retry=AGAIN, concurrency=4)

        messages: list[Message[Any]] = [
            Message(EVENT, b"%d" % number, key=f"k{number % 6}")
            for number in range(120)
        ]
        processes[0].broker.publish_many(messages)

        wait_until(lambda: sequences.count == 120)
        assert sequences.by_key == {
            f"k{key}": list(range(key, 120, 6)) for key in range(6)
        }
        assert sequences.overlaps == 0

    def test_a_key_keeps_its_order_when_a_process_hands_over(self, site: Site) -> None:
        if not (site.promises("ordered_by_key") and site.promises("durable")):
            return
        first, second = site.process(), site.process()
        gate, notes = site.gate(), Notes()
        first.consume(gate, ordered_by_key=True)
        first.send_many(range(10), key="k")
        wait_until(lambda: gate.entered)

        gate.open()
        first.close()
        second.consume(notes, ordered_by_key=True)

        wait_until(lambda: len(gate.handled) + len(notes.handled) == 10)
        assert [*gate.numbers, *notes.numbers] == list(range(10))
