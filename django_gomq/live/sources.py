"""Where the numbers of a reading come from: a table, a directory, or this process."""

from __future__ import annotations

import math
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from django_gomq.bus.counts import FINE_BUCKETS, OTHER
from django_gomq.observability.metrics.multiprocess.directory import (
    DirectoryError,
    SharedDirectory,
)
from django_gomq.observability.metrics.samples import SampleTable
from django_gomq.operations.moments import (
    Buckets,
    ConsumerCounted,
    ConsumerHolds,
    Counted,
    EventCounted,
    EventHolds,
    Holds,
    Key,
    Moment,
    Tick,
    take_moment,
)
from django_gomq.operations.viewing import Desired, View
from django_gomq.process.role import role_name
from django_gomq.site import Site

from .reading import SPAN_SECONDS, ProcessReading, Source
from .window import Window

DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
OVERLAP_SECONDS: Final = 3.0
"""A tick that was written earlier may be committed later than another one."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a source has told."""

    source: Source
    at: float
    """In seconds since 1970, by the clock that ticks go by."""
    holds: Sequence[Holds]
    """Of each process, or of all together."""
    processes: Sequence[ProcessReading] = ()
    process_count: int
    desired: Mapping[Key, Desired] = {}


class NumberSource(ABC):
    """One of the three. For one thread at a time."""

    def __init__(self) -> None:
        self.window = Window()
        """What was counted; brought up to date by ``look``."""

    @abstractmethod
    def look(self) -> Facts | None:
        """Return what is so now; None where this source knows nothing. Blocks."""


class TableSource(NumberSource):
    """All processes of the site, by what they write into the database."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view
        self._since = 0.0
        self._seen: dict[tuple[int, float], float] = {}
        """When ticks that may be read again were written, by slot and end."""

    def look(self) -> Facts | None:
        """Have processes tell more, and return what those that live told last."""
        self._view.watch()
        processes = self._view.processes()
        if not processes:
            return None
        now = processes[0].now
        since = max(self._since - OVERLAP_SECONDS, now - SPAN_SECONDS)
        for written, tick in self._view.ticks_written_since(since, self._seen):
            self.window.add(tick)
            self._seen[tick.slot, tick.ended] = written
            self._since = max(self._since, written)
        oldest = self._since - OVERLAP_SECONDS
        self._seen = {key: at for key, at in self._seen.items() if at >= oldest}
        self.window.advance(now)
        told = [
            ProcessReading(
                host=process.host,
                pid=process.pid,
                role=process.role,
                up_seconds=process.up_seconds,
                seen_seconds=process.seen_seconds,
                threads=process.holds.threads,
                threads_busy=process.holds.threads_busy,
            )
            for process in processes
        ]
        return Facts(
            source=Source.TABLE,
            at=now,
            holds=[process.holds for process in processes],
            processes=told,
            process_count=len(told),
            desired=self._view.desired(),
        )


class GrowingSource(NumberSource):
    """One that tells sums: what was counted is what they have grown by between looks.

    So it knows the time since somebody began to look in this process, and no more.
    """

    def __init__(self) -> None:
        super().__init__()
        self._before: tuple[float, Counted] | None = None

    def grow(self, now: float, counted: Counted) -> None:
        """Take the sums of this moment."""
        if self._before is not None and now > self._before[0]:
            then, earlier = self._before
            grown = counted.since(earlier)
            tick = Tick(slot=0, ended=now, seconds=now - then, counted=grown)
            self.window.add(tick)
        self._before = now, counted
        self.window.advance(now)


class ProcessSource(GrowingSource):
    """The process that answers, and no other."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site
        self._began = time.time()

    def look(self) -> Facts:
        """Return what it holds."""
        now, worker = time.time(), self._site.worker
        moment = take_moment(
            self._site.brokers.values(),
            threads=worker.threads if worker else 0,
            threads_busy=worker.busy if worker else 0,
        )
        self.grow(now, moment.counted)
        process = ProcessReading(
            host=socket.gethostname(),
            pid=os.getpid(),
            role=role_name(),
            up_seconds=now - self._began,
            seen_seconds=0.0,
            threads=moment.holds.threads,
            threads_busy=moment.holds.threads_busy,
        )
        return Facts(
            source=Source.PROCESS,
            at=now,
            holds=[moment.holds],
            processes=[process],
            process_count=1,
        )


class DirectorySource(GrowingSource):
    """The processes of this machine that write their metrics into one directory."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._directory = SharedDirectory(path)

    def look(self) -> Facts | None:
        """Return what all hold together; None where the directory cannot be read."""
        now = time.time()
        try:
            table = SampleTable(self._directory.read())
            moment, processes = read_moment(table), table.total("processes")
        except (DirectoryError, ValueError, KeyError, OverflowError):
            return None  # the metrics page says what is wrong with it
        self.grow(now, moment.counted)
        return Facts(
            source=Source.DIRECTORY,
            at=now,
            holds=[moment.holds],
            process_count=processes,
        )


_FAILURES: Final = ("error", "timeout", "rejected")
_NONE: Final[Mapping[str, int]] = {}


def read_moment(table: SampleTable) -> Moment:
    """Return what all processes of a metrics page hold, and have counted.

    Raises ValueError, OverflowError or KeyError for what no count is.
    """
    consumers_hold, consumers = _consumers(table)
    events_hold, events = _events(table)
    holds = Holds(
        threads=table.total("threads"),
        threads_busy=table.total("threads_busy"),
        consumers=consumers_hold,
        events=events_hold,
    )
    return Moment(holds=holds, counted=Counted(consumers=consumers, events=events))


def _consumers(
    table: SampleTable,
) -> tuple[dict[str, dict[str, ConsumerHolds]], dict[str, dict[str, ConsumerCounted]]]:
    sums = {
        name: table.sums(name, "consumer")
        for name in (
            *("channel_depth", "channel_capacity", "messages_scheduled"),
            *("messages_in_flight", "messages_spilled", "message_retries_total"),
            "messages_dead_lettered_total",
        )
    }
    ages = table.greatest_by("channel_oldest_age_seconds", "consumer")
    running = table.greatest_by("handler_running_seconds", "consumer")
    paused = table.greatest_by("consumer_paused", "consumer")
    outcomes = table.split("messages_processed_total", "consumer", "outcome")
    dropped = table.split("messages_dropped_total", "consumer", "reason")
    wait = table.buckets("message_wait_seconds")
    duration = table.buckets("handler_duration_seconds")
    processes = table.total("processes")
    holds: dict[str, dict[str, ConsumerHolds]] = {}
    counted: dict[str, dict[str, ConsumerCounted]] = {}
    for key in sums["channel_depth"]:
        broker, name = key
        outcome, lost = outcomes.get(key, _NONE), dropped.get(key, _NONE)
        held = ConsumerHolds(
            depth=sums["channel_depth"].get(key, 0),
            scheduled=sums["messages_scheduled"].get(key, 0),
            in_flight=sums["messages_in_flight"].get(key, 0),
            spilled=sums["messages_spilled"].get(key, 0),
            capacity=sums["channel_capacity"].get(key, 0),
            oldest_age=ages.get(key, 0.0),
            running_seconds=running.get(key, 0.0),
            paused=processes if paused.get(key) else 0,
            processes=processes,
        )
        handled = outcome.get("success", 0)
        dead = sums["messages_dead_lettered_total"].get(key, 0)
        ended = handled + dead + sum(lost.values())
        holds.setdefault(broker, {})[name] = held
        counted.setdefault(broker, {})[name] = ConsumerCounted(
            # No metric has it: what came in has ended, or is held.
            dispatched=ended + held.taken + held.spilled,
            handled=handled,
            failed=sum(outcome.get(failure, 0) for failure in _FAILURES),
            retried=sums["message_retries_total"].get(key, 0),
            dead_lettered=dead,
            dropped={reason: count for reason, count in lost.items() if count},
            wait=_fine(wait.get(key, ())),
            duration=_fine(duration.get(key, ())),
        )
    return holds, counted


def _fine(buckets: Sequence[tuple[float, int]]) -> Buckets:
    """Return counts by our own bounds, of a histogram that may have more."""
    counts: dict[int, int] = {}
    below = 0
    by_bound = dict(buckets)
    for index, bound in enumerate((*FINE_BUCKETS, math.inf)):
        up_to = by_bound.get(bound, below)
        if up_to > below:
            counts[index] = up_to - below
            below = up_to
    return counts


def _events(
    table: SampleTable,
) -> tuple[dict[str, dict[str, EventHolds]], dict[str, dict[str, EventCounted]]]:
    sums = {
        name: table.sums(name, "event")
        for name in (
            *("messages_published_total", "messages_unconsumed_total"),
            *("messages_rolled_back_total", "messages_delayed"),
            *("queue_depth", "queue_capacity"),
        )
    }
    refused = table.split("messages_refused_total", "event", "reason")
    holds: dict[str, dict[str, EventHolds]] = {}
    counted: dict[str, dict[str, EventCounted]] = {}
    for key in sums["messages_published_total"]:
        broker, name = key
        row = EventCounted(
            published=sums["messages_published_total"].get(key, 0),
            unconsumed=sums["messages_unconsumed_total"].get(key, 0),
            rolled_back=sums["messages_rolled_back_total"].get(key, 0),
            refused={
                reason: count
                for reason, count in refused.get(key, _NONE).items()
                if count
            },
        )
        if name == OTHER and row == EventCounted():
            continue
        counted.setdefault(broker, {})[name] = row
        holds.setdefault(broker, {})[name] = EventHolds(
            depth=sums["queue_depth"].get(key, 0),
            delayed=sums["messages_delayed"].get(key, 0),
            capacity=sums["queue_capacity"].get(key, 0),
        )
    return holds, counted
