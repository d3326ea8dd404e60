"""live(): events are published for real, and consumers run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Final
from weakref import WeakKeyDictionary

from django.core.signals import setting_changed

from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import ConfigurationError, describe_error
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.stats import BrokerStats, QueueStats
from django_gomq.capturing import LIVE, captures, is_forced, is_in_test_case
from django_gomq.outgoing import NEVER_COMMITS
from django_gomq.site import brokers, renew

_POLL_SECONDS: Final = 0.002
_SERVER_SECONDS: Final = 0.02
_never: Final = Event()
_failures: Final[WeakKeyDictionary[Broker, str]] = WeakKeyDictionary()
"""Why a broker could not be set up."""


class LiveBus:
    """The running bus of a test."""

    def drain(self, timeout: float = 10.0) -> None:
        """Wait until everything that was published is handled, retries included.

        Blocks up to ``timeout`` seconds; then raises AssertionError that names what is
        left. Not for use by a handler.
        """
        deadline = Clock.monotonic() + timeout
        while left := _left():
            if Clock.monotonic() >= deadline:
                raise AssertionError(
                    f"After {timeout:g} s there is still work: {'; '.join(left)}."
                )
            _never.wait(_POLL_SECONDS)


def _left() -> list[str]:
    found = []
    for alias, broker in brokers.items():
        if broker.is_started:
            lines = _of_process(broker)
            if not lines and broker.capabilities.settles:
                # What was fetched between two looks is seen by the third.
                lines = list(_of_server(broker)) or _of_process(broker)
            if lines and broker in _failures:
                lines.append(f"live() could not set it up: {_failures[broker]}")
            found += [
                f"{alias}: {line}" if len(brokers) > 1 else line for line in lines
            ]
    return found


def _of_server(broker: Broker) -> Iterator[str]:
    """Yield what a server still has for the consumers that run here."""
    _never.wait(_SERVER_SECONDS)  # the look may cost a connection
    sample = broker.backend.stats()
    yield from _line("its outbox", {"to be handed on": sample.outbox_depth or 0})
    for consumer in broker.consumers:
        numbers = sample.consumers.get(consumer.name)
        if numbers is None and sample.outbox_depth:
            yield f"{consumer.name} is not recorded there: call setup() of the broker"
        if numbers is not None:
            parts = {
                "waiting at the server": numbers.ready or 0,
                "scheduled there": numbers.scheduled or 0,
                "handed out": numbers.held or 0,
            }
            yield from _line(consumer.name, parts)


def _of_process(broker: Broker) -> list[str]:
    """Return what this process has."""
    before, after = broker.stats(), broker.stats()
    if found := [*_of_stats(before)] or [*_of_stats(after)]:
        return found
    # A handler may have emitted, and ended, between two looks of the first.
    return [
        f"{event} was published just now"
        for event, queue in after.queues.items()
        if queue.published != before.queues.get(event, QueueStats()).published
    ]


def _of_stats(stats: BrokerStats) -> Iterator[str]:
    for event, queue in stats.queues.items():
        waiting = queue.published - queue.dispatched - queue.delayed
        parts = {"in the queue": waiting, "delayed": queue.delayed}
        yield from _line(event, parts)
    for consumer, numbers in stats.consumers.items():
        parts = {
            "waiting": numbers.depth,
            "scheduled for a retry": numbers.scheduled,
            "in its handler": numbers.in_flight,
            # Between two counts, while the bus is at work.
            "on its way": numbers.unaccounted,
        }
        yield from _line(f"{consumer}{' (paused)' * numbers.paused}", parts)


def _line(name: str, parts: dict[str, int]) -> Iterator[str]:
    told = [f"{count} {what}" for what, count in parts.items() if count]
    if told:
        yield f"{name} has {', '.join(told)}"


@contextmanager
def live() -> Iterator[LiveBus]:
    """Publish events for real in a test; for TransactionTestCase, or without database.

    At its start, and where ``override_settings`` changes GOMQ inside, brokers that keep
    their tables in a database of the test are set up, for which it blocks; what fails
    there, ``drain`` tells. Consumers start in this process at the first emit. At the
    end the brokers finish what they accepted, up to ``DRAIN_TIMEOUT``, and new ones
    take their place. Not thread-safe: it holds for the whole process. Raises
    ConfigurationError inside TestCase, whose transaction never commits.
    """
    if is_in_test_case():
        raise ConfigurationError(NEVER_COMMITS)
    is_first = not is_forced()
    captures.append(LIVE)
    try:
        if is_first:
            # Here, so that it comes after who makes new brokers of the new setting.
            setting_changed.connect(_note_setting, dispatch_uid=__name__)
            _set_up_databases()
        yield LiveBus()
    finally:
        captures.remove(LIVE)
        if not is_forced():
            setting_changed.disconnect(dispatch_uid=__name__)
            renew()


def _note_setting(*, setting: str, **signal: object) -> None:
    if setting == "GOMQ":
        _set_up_databases()


def _set_up_databases() -> None:
    """Do what ``gomq setup`` would: each test has a database without consumers.

    Not at the start of a broker, which may come inside a transaction that locks others
    out.
    """
    # It reads the settings, which a plugin of pytest is imported before.
    from django_gomq.dead_letters.store import may_have_table  # noqa: PLC0415

    site = brokers.site
    if site is None:
        return
    for database, alias in site.databases.items():
        broker = brokers[alias]
        # Not the site's own, which tests without a database still have.
        if site.starts_by_itself(broker) and may_have_table(database):
            try:
                broker.setup()
            except Exception as error:  # noqa: BLE001 - whatever a client raises
                _failures[broker] = describe_error(error)
