"""The thread by which a process tells what it does, and does what operators want."""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Iterable
from threading import Event, Lock, Thread
from typing import Final
from weakref import WeakKeyDictionary

from django_gomq.bus.broker import Broker
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import Process, claim_thread, current
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.capturing import is_test_environment
from django_gomq.dead_letters.store import may_have_table
from django_gomq.process.role import only_looks, role_name
from django_gomq.site import Site

from .moments import TICK_SECONDS, Counted, Moment, Tick, take_moment
from .sampling import Sampling
from .table import PLACES, Look, ProcessTables, database_of

logger = logging.getLogger("gomq.operations")

FIRST_LOOK_SECONDS: Final = 1.0
"""So long the start of a broker waits for what operators want of its consumers."""
IDLE_LOOK_SECONDS: Final = 4.0
"""Between two looks while nobody looks at us."""
IDLE_TICK_SECONDS: Final = 10.0
RARE_TELL_SECONDS: Final = 120.0
"""Between two writes into SQLite while nobody looks: it has one writer at a time, and
others of the site wait for it."""
LEAST_TICK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 10.0
"""After a look that failed."""
END_SECONDS: Final = 2.0
"""So long the end of the process waits for the last tick."""


class Reporting:
    """The reporters of a site, one for each process; thread-safe."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._reporters: WeakKeyDictionary[Process, Reporter] = WeakKeyDictionary()

    def attend(self, broker: Broker) -> None:
        """Have what operators want of its consumers be so; tell of it from now on.

        Called before it starts in this process. Blocks for the database up to
        FIRST_LOOK_SECONDS, the first time; what it says later is done then. Never
        raises, and asks nothing where the migrations were not applied.
        """
        process = current()
        with process.lock:
            if process not in self._reporters:
                self._reporters[process] = Reporter(self._site)
            reporter = self._reporters[process]
        reporter.attend(broker)

    def end(self) -> None:
        """Tell for the last time, after the drain. Blocks up to END_SECONDS."""
        reporter = self._reporters.get(current())
        if reporter is not None:
            reporter.end()


class Reporter:
    """Looks, does what is wanted, and tells, on a thread "gomq-reporter"."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = Lock()
        self._thread: Thread | None = None
        self._is_off = only_looks(site.config.idle_commands)
        self._looked, self._stopping = Event(), Event()
        self._tables: ProcessTables | None = None
        self._latest: Look | None = None
        self._failures = 0
        self._ticks: deque[Tick] = deque(maxlen=PLACES)
        """What was counted and not told yet."""
        self._counted, self._counted_at = Counted(), Clock.monotonic()
        self._told_at = -math.inf
        self._sampling = Sampling(site)

    def attend(self, broker: Broker) -> None:
        """Do what ``Reporting.attend`` says."""
        if self._start() and not broker.capabilities.desired_state:
            self._looked.wait(FIRST_LOOK_SECONDS)
            self._apply([broker])

    def end(self) -> None:
        """Tell for the last time, and end the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    def _start(self) -> bool:
        """Start the thread, if it may have something to ask; return whether it runs."""
        with self._lock:
            if self._thread is None and not self._is_off:
                thread = Thread(target=self._run, name="gomq-reporter", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no thread can be had; nobody needs it
                    self._note(error)
                else:
                    self._thread = thread
            return not self._is_off and self._thread is not None

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        claim_thread()
        try:
            while not self._is_off:
                pause = self._try_step()
                self._looked.set()
                if self._is_off or self._stopping.wait(pause):
                    break
            if self._tables is not None and not self._is_off:
                self._tell_last(self._tables)
        except BaseException as error:  # noqa: BLE001 - whatever a driver raises
            self._note(error)
        finally:
            self._looked.set()
            if self._tables is not None:
                self._tables.rest()

    def _try_step(self) -> float:
        """Look and tell; return how many seconds to wait until the next time."""
        try:
            if self._tables is None:
                self._tables = self._find_tables()
            if self._tables is None:
                self._is_off = True
                return 0.0
            pause = self._step(self._tables)
            self._failures = 0
            return pause
        except BaseException as error:  # noqa: BLE001 - whatever a driver raises
            # A test may not have the database that a process has.
            self._is_off = is_test_environment()
            if not self._is_off:
                self._note(error)
            return RETRY_SECONDS

    def _find_tables(self) -> ProcessTables | None:
        """Return the tables, if the database has them. Imports what it is asked by."""
        alias = database_of(self._site)
        if not may_have_table(alias):
            return None
        owner = f"{os.getpid()}-{os.urandom(6).hex()}"
        tables = ProcessTables(alias, owner, role_name())
        return tables if tables.are_there() else None

    def _step(self, tables: ProcessTables) -> float:
        is_first = self._latest is None
        look = self._latest = tables.look()
        self._apply(self._site.brokers.values())
        if is_first:  # a broker waits for it, and has not started yet
            return LEAST_TICK_SECONDS
        now = Clock.monotonic()
        is_told = self._is_due(tables, look)
        if is_told or now >= self._counted_at + IDLE_TICK_SECONDS:
            moment = self._count(look)
            if is_told:
                self._tell(tables, moment)
        self._sampling.follow(tables, look.messages)
        if look.is_watched:
            return TICK_SECONDS
        tables.rest()
        return IDLE_LOOK_SECONDS

    def _is_due(self, tables: ProcessTables, look: Look) -> bool:
        """Whether to tell now: somebody looks, or nothing was told for long."""
        pause = IDLE_TICK_SECONDS if tables.writes_cheaply else RARE_TELL_SECONDS
        return look.is_watched or Clock.monotonic() >= self._told_at + pause

    def _apply(self, brokers: Iterable[Broker]) -> None:
        """Have consumers be as is wanted, where no backend sees to it."""
        desired = {} if self._latest is None else self._latest.desired
        for broker in brokers if desired else ():
            if not broker.is_used or broker.capabilities.desired_state:
                continue
            for consumer in broker.consumers:
                state = desired.get((broker.alias, consumer.name))
                if state is not None:
                    broker.apply(consumer.name, state)

    def _count(self, look: Look) -> Moment:
        """Note what was counted since the last time."""
        worker, now = self._site.worker, Clock.monotonic()
        moment = take_moment(
            self._site.brokers.values(),
            threads=worker.threads if worker else 0,
            threads_busy=worker.busy if worker else 0,
        )
        seconds = now - self._counted_at
        if seconds >= LEAST_TICK_SECONDS or self._stopping.is_set():
            tick = Tick(
                slot=0,  # the table has it
                ended=look.now,
                seconds=max(seconds, 0.001),
                counted=moment.counted.since(self._counted),
            )
            self._ticks.append(tick)
            self._counted, self._counted_at = moment.counted, now
        return moment

    def _tell(self, tables: ProcessTables, moment: Moment) -> None:
        ticks = list(self._ticks)
        tables.tell(moment.holds, ticks)
        self._told_at = Clock.monotonic()
        for _ in ticks:
            self._ticks.popleft()

    def _tell_last(self, tables: ProcessTables) -> None:
        """Tell what a drain has counted, and sampled."""
        if self._latest is not None:
            look = self._latest = tables.look()
            self._tell(tables, self._count(look))
            self._sampling.follow(tables, look.messages)
            tables.leave()

    def _note(self, error: BaseException) -> None:
        """Say what failed, once for each outage."""
        self._failures += 1
        if self._failures == 1 and not self._stopping.is_set():
            write_log(
                logger,
                logging.WARNING,
                "This process cannot tell what it does, nor learn what operators want "
                "of its consumers; it goes on, and tries again",
                error=error,
            )
