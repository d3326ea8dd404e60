"""Theme restart: what was accepted outlives the server's absence and the process."""

from __future__ import annotations

from .site import Notes, Site, wait_until


class RestartTheme:
    """What was accepted outlives the server's absence and the process."""

    def test_what_was_accepted_outlives_the_process(self, site: Site) -> None:
        first, notes = site.process(), Notes()
        first.consume(notes, starts=False)
        if not site.promises("durable"):
            first.broker.pause("suite.counter")
            first.send(*range(5))
            assert sum(first.broker.close(0).dropped.values()) == 5  # and it says so
            return
        web = site.process(may_start=lambda: False)
        web.send(*range(5))
        web.close()
        first.close()
        second = site.process()

        second.consume(notes)

        wait_until(lambda: sorted(notes.numbers) == list(range(5)))

    def test_a_reader_goes_on_when_the_server_is_back(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        process, notes = site.process(), Notes()
        process.consume(notes)
        process.send(1)
        wait_until(lambda: process.stats().succeeded == 1)
        site.harness.stop_server()
        failures = sum(call.failed for call in process.calls.of("fetch", "wait"))
        wait_until(
            lambda: (
                sum(call.failed for call in process.calls.of("fetch", "wait"))
                > failures
            )
        )

        site.harness.start_server()
        other = site.process(may_start=lambda: False)
        other.send(2)

        wait_until(lambda: process.stats().succeeded == 2)
        assert notes.numbers == [1, 2]
        assert process.broker.stats().reader_up

    def test_nothing_accepted_is_lost_through_an_absence(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        process, notes = site.process(), Notes()
        process.consume(notes)
        process.send_many(range(100))
        site.harness.stop_server()
        site.harness.start_server()
        process.mend()

        wait_until(lambda: len(set(notes.numbers)) == 100)
        wait_until(lambda: process.stats().succeeded >= 100)

    def test_what_a_killed_process_held_goes_to_another(self, site: Site) -> None:
        if not site.promises("durable"):
            return
        victim, gate = site.process(), site.gate()
        victim.consume(gate)
        victim.send(*range(10), key="k")
        wait_until(lambda: gate.entered)
        victim.cut()
        site.let_lease_end()
        survivor, notes = site.process(), Notes()

        survivor.consume(notes)

        wait_until(lambda: sorted(notes.numbers) == list(range(10)))
        assert {attempt for _, attempt in notes.handled} <= {1, 2}
