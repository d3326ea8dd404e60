"""Theme lost lease: what was given to somebody else counts for nothing here."""

from __future__ import annotations

from typing import Any

from django_gomq.bus.message import Message

from .site import Gate, Notes, Process, Site, wait_until


def cut_off_while_busy(site: Site, count: int = 1) -> tuple[Process, Gate]:
    """Return a process that lost its leases, and a handler that is at the first."""
    process, gate = site.process(), site.gate()
    process.consume(gate)
    process.send(*range(count), key="k")
    wait_until(lambda: gate.entered)
    wait_until(lambda: process.stats().depth + process.stats().in_flight == count)
    process.cut()
    site.let_lease_end()
    return process, gate


def wait_for_one_more(process: Process, call: str) -> None:
    before = process.calls.done(call)
    wait_until(lambda: process.calls.done(call) > before)


class LostLeaseTheme:
    """What was given to somebody else counts for nothing here."""

    def test_a_late_success_counts_for_nothing(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        first, gate = cut_off_while_busy(site)
        second, notes = site.process(), Notes()
        second.consume(notes)
        wait_until(lambda: second.stats().succeeded == 1)
        first.mend()

        gate.open()

        wait_until(lambda: first.stats().in_flight == 0)
        first.wait_until_quiet()
        stats = first.stats()
        assert (stats.succeeded, stats.handed_back) == (0, 1)
        assert stats.last_success is None
        assert notes.numbers == [0]

    def test_a_late_failure_is_neither_retried_nor_a_dead_letter(
        self, site: Site
    ) -> None:
        if not site.promises("durable"):
            return
        first, second = site.process(), site.process()
        gate, notes = site.gate(), Notes()

        def fail_late(message: Message[Any]) -> None:
            gate.handle(message)
            raise ValueError

        first.consume(fail_late)
        first.send(1)
        wait_until(lambda: gate.entered)
        first.cut()
        site.let_lease_end()
        second.consume(notes)
        wait_until(lambda: second.stats().succeeded == 1)
        first.mend()

        gate.open()

        wait_until(lambda: first.stats().in_flight == 0)
        first.wait_until_quiet()
        stats = first.stats()
        assert (stats.dead_lettered, stats.retries, stats.handed_back) == (0, 0, 1)
        assert stats.exceptions == {}
        assert first.broker.dead_letters() == []
        assert notes.numbers == [1]

    def test_a_late_end_does_not_end_the_work_of_another_process(
        self, site: Site
    ) -> None:
        if not site.promises("durable"):
            return
        first, gate = cut_off_while_busy(site)
        second, slow = site.process(), site.gate()
        second.consume(slow)
        wait_until(lambda: slow.entered)
        first.mend()

        gate.open()
        wait_until(lambda: first.stats().handed_back == 1)

        assert second.stats().in_flight == 1
        slow.open()
        wait_until(lambda: second.stats().succeeded == 1)
        second.wait_until_quiet()
        assert second.stats().handed_back == 0

    def test_what_waits_is_withdrawn(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        first, gate = cut_off_while_busy(site, 3)
        second, notes = site.process(), Notes()
        second.consume(notes)
        wait_until(lambda: second.stats().succeeded == 3)

        first.mend()

        wait_until(lambda: first.stats().depth == 0)
        gate.open()
        wait_until(lambda: first.stats().in_flight == 0)
        first.wait_until_quiet()
        assert gate.numbers == [0]
        assert sorted(notes.numbers) == [0, 1, 2]
        assert first.stats().handed_back == 3

    def test_a_slow_handler_keeps_its_lease(self, site: Site) -> None:
        lease = site.capabilities.lease
        if lease is None:
            site.note_unpromised("lease")
            return
        first, second = site.process(), site.process()
        gate, notes = site.gate(), Notes()
        first.consume(gate)
        first.send(1)
        wait_until(lambda: gate.entered)

        for _ in range(3):
            wait_for_one_more(first, "extend")
            site.harness.pass_time(0.4 * lease)
        wait_for_one_more(first, "extend")
        second.consume(notes)
        wait_until(lambda: second.calls.done("fetch") > 2)

        gate.open()
        wait_until(lambda: first.stats().succeeded == 1)
        assert (gate.handled, notes.handled) == ([(1, 1)], [])
        assert first.stats().handed_back == 0
