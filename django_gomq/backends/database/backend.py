"""The backend on the project's own database: an outbox, and durable consumers."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial
from threading import Event
from typing import Any, ClassVar, Final

from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.backend import (
    Backend,
    BackendContext,
    Capabilities,
    ConsumerState,
    Fetched,
    HistoryFilter,
    Settled,
    Settlement,
    Want,
)
from django_gomq.bus.consumer import Consumer
from django_gomq.bus.dead_letters import DeadLetter
from django_gomq.bus.delivery import Delivery
from django_gomq.bus.durations import read_seconds
from django_gomq.bus.errors import ConfigurationError, PublishError
from django_gomq.bus.message import Message
from django_gomq.bus.stats import ServerSample
from django_gomq.bus.wire import WireMessage

from . import (
    claims,
    dead_letters,
    history,
    inbox,
    outbox,
    recording,
    sampling,
    settling,
    upkeep,
)
from .connection import OwnConnection, check_alias, two_connections
from .notify import Notifications, listening_alias
from .processes import ProcessRecord, Pulse, rescue, tell_of_loss
from .publishing import Outbox
from .recording import Recorded
from .rows import TABLES, Row, absent_columns, open_rows, token_of

BEATS: Final = 5
"""So often a process beats within one lease."""
SHORTEST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between two looks at the tables: what is found shortens them."""
PATIENCE: Final = 5.0
"""Seconds that a release may take: a stop waits for it."""
MAX_DEATHS: Final = 4
"""So many processes may die with a message before it is a dead letter."""
_DAY: Final = 86_400.0


class DatabaseBackend(Backend):
    """Writes an event beside the rows it speaks of, and hands it to any process.

    ``using`` is the alias of the database; ``lease`` the seconds after which others
    take over from a process that does not beat; ``history`` the seconds for which
    events are kept, with how their deliveries ended unless ``outcomes`` is False;
    ``answer_timeout`` the seconds that a worker waits for an answer.
    ``notify`` has workers told at once, on PostgreSQL: True, or the alias to listen on.
    """

    name: ClassVar[str] = "database"

    def __init__(
        self,
        *,
        using: str = DEFAULT_DB_ALIAS,
        lease: float | timedelta = 15.0,
        history: float | timedelta = 7 * _DAY,
        outcomes: bool = True,
        answer_timeout: float | timedelta = 30.0,
        notify: bool | str = False,
    ) -> None:
        lease = read_seconds("lease", lease, least=0.1)
        history = read_seconds("history", history)
        seconds = read_seconds("answer_timeout", answer_timeout, least=0.001)
        if not isinstance(outcomes, bool):
            raise ConfigurationError(f"outcomes is {outcomes!r:.120}, no bool.")
        check_alias("using", using)
        self._listening = listening_alias(notify, using)
        self.capabilities = Capabilities(
            durable=True,
            ordered_by_key=True,
            priority=True,
            max_delay=None,
            transactional=True,
            idempotent=True,
            delayed_retry=True,
            dead_letters=True,
            lease=lease,
            counts_deliveries=True,
            max_deliveries=MAX_DEATHS,
            desired_state=True,
            replay=True,
        )
        self.database = self._using = using
        self._lease, self._history = lease, history
        self._answer_timeout = seconds
        self._reading, self._settling = two_connections(using, seconds)
        self._settler = settling.Settling(self._settling, keeps_outcomes=outcomes)
        self._dialect = self._reading.dialect
        self._pruning = upkeep.Pruning(history)
        self._position = outbox.Position()
        self._woken = Event()
        self._has_fresh = self._was_idle = False
        self._pause = SHORTEST_PAUSE
        self._look_at = self._rescue_at = 0.0
        self._undesired_at = -math.inf
        self._ids: Mapping[str, Recorded] = {}
        self._unanswered: dict[int, float] = {}
        self._unreleased: list[Delivery] = []
        self._release_at = 0.0
        self._found_dead = 0

    def open(self, context: BackendContext) -> None:
        self._context = context
        self._outbox = Outbox(self._using, context.broker)
        self._process = ProcessRecord(context.owner)
        # A beat that is not answered is tried anew before the lease ends.
        beating = OwnConnection(self._using, min(self._answer_timeout, self._lease / 3))
        self._pulse = Pulse(
            self._process, beating, self._lease / BEATS, context.inbox.report
        )
        self._notifications = Notifications(
            self._using, self._listening, self._answer_timeout, context, self._look_soon
        )

    def close(self, timeout: float) -> None:
        self._woken.set()
        self._notifications.end()
        self._pulse.end()
        for connection in (self._reading, self._settling):
            connection.close(timeout)  # a thread that waits for an answer closes it

    def setup(self, consumers: Sequence[Consumer]) -> list[str]:
        made = self._reading.run(
            partial(recording.record_consumers, consumers=consumers)
        )
        self._ids = {}
        return [self._complete(entry) for entry in made]

    def _complete(self, made: recording.Recording) -> str:
        """Hand a new consumer the history that it wants; return what became of it."""
        name = made.consumer.name
        if made.was is not None:
            return f"{name}: renamed from {made.was}"
        if made.is_new and made.consumer.start == "earliest":
            recorded = self._find(name)
            history.wait_for_dispatches(self._reading)
            count = history.hand_out(
                self._reading, recorded, HistoryFilter(), replayed=False
            )
            return f"{name}: recorded in database {self._using!r}, with {count} kept"
        return f"{name}: recorded in database {self._using!r}"

    def _find(self, name: str) -> Recorded:
        if not self._recorded(name):
            known = ", ".join(sorted(self._ids)) or "none"
            raise ConfigurationError(
                f"Database {self._using!r} has no consumer {name!r} recorded; there "
                f"are {known}.",
                consumer=name,
                broker=self._context.broker,
            )
        return self._ids[name]

    def check(self, consumers: Sequence[Consumer]) -> list[str]:
        connection = connections[self._using]
        absent = TABLES.difference(connection.introspection.table_names())
        with connection.cursor() as cursor:
            absent = absent or absent_columns(cursor)
        if absent:
            command = f"manage.py migrate gomq --database {self._using}"
            names = ", ".join(sorted(absent))
            return [f"Database {self._using!r} lacks {names}: run {command}."]
        with connection.cursor() as cursor:
            recorded = recording.recorded_consumers(cursor)
        return recording.problems_of(recorded, consumers)

    # ------------------------------------------------------------ publishing

    def publish_many(
        self, messages: Sequence[Message[Any]], timeout: float | None
    ) -> list[PublishError | None]:
        error = self._outbox.write(partial(self._insertions, messages))
        if error is None:
            self.wake()
        return [error] * len(messages)

    def publish_in_transaction(
        self, messages: Sequence[Message[Any]], using: str
    ) -> None:
        self._outbox.write_into(using, partial(self._insertions, messages))

    def _insertions(
        self, messages: Sequence[Message[Any]]
    ) -> Sequence[outbox.Statement]:
        return outbox.insertions(self._dialect, messages, self._context.source)

    def wake(self) -> None:
        self._has_fresh = True
        self._look_soon()
        self._notifications.send()

    def _look_soon(self) -> None:
        self._pause = SHORTEST_PAUSE
        if not self._woken.is_set():  # who clears it looks then
            self._woken.set()

    # ------------------------------------------------------------ reading

    def announce(self, consumers: Sequence[Consumer]) -> None:
        self._process.announce([consumer.name for consumer in consumers])

    def fetch(self, wants: Sequence[Want]) -> Sequence[Fetched]:
        self._keep_house()
        wants = [want for want in wants if self._recorded(want.consumer.name)]
        is_due = self._woken.is_set() or time.monotonic() >= self._look_at
        if not wants or not is_due:
            return ()
        self._woken.clear()
        self._look_at = 0.0  # one that fails is due again
        work = self._look([self._ids[want.consumer.name].id for want in wants])
        if not work:
            self._look_later()
            return ()
        self._pause = SHORTEST_PAUSE
        lease = self._process.next_lease()
        consumers = {want.consumer.name: want.consumer for want in wants}
        read: dict[int, WireMessage] = {}
        try:
            found = self._reading.run(partial(self._take, wants, work, lease))
            return [
                Fetched(name, self._open(consumers[name], rows, read))
                for name, rows in found.items()
            ]
        except BaseException:
            # Its commit may have arrived, and nobody has what was claimed.
            self._unanswered[lease] = time.monotonic()
            raise

    def _recorded(self, name: str) -> bool:
        if name not in self._ids:
            rows = self._reading.run(recording.recorded_consumers)
            self._ids = {recorded.name: recorded for recorded in rows}
        return name in self._ids

    def _look(self, consumers: Sequence[int]) -> claims.Work:
        """Ask what there is; not where nothing was, and this process has published.

        One trip less until its handler. The next call asks, so that nothing else waits.
        """
        has_fresh, self._has_fresh = self._has_fresh, False
        if has_fresh and self._was_idle:
            self._was_idle = False
            return claims.FRESH
        with self._position.looking(self._dialect) as has_event:
            look = claims.look_statement(self._dialect, has_event, consumers)
            (answer,) = self._reading.read(*look)
        work = claims.work_in(answer, consumers)
        self._was_idle = not work
        self._undesired_at = -math.inf if work.has_desires else time.monotonic()
        return work

    def _look_later(self) -> None:
        """Let the looks of an idle process become rare, and not at one moment."""
        pause = self._pause * random.uniform(0.8, 1.2)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        self._look_at = time.monotonic() + pause

    def _take(
        self,
        wants: Sequence[Want],
        work: claims.Work,
        lease: int,
        cursor: CursorWrapper,
    ) -> Mapping[str, list[Row]]:
        """Claim what is ready; then dispatch, and take of that what still has room."""
        if work.to_promote:
            claims.promote(cursor, self._dialect)
        found: dict[str, list[Row]] = {}
        left = []
        for want in wants:
            rows = self._claim(cursor, want, work, lease)
            if rows:
                found[want.consumer.name] = rows
            if want.room > len(rows):
                left.append(Want(want.consumer, want.room - len(rows), want.busy_keys))
        if work.to_dispatch and left:
            fresh = outbox.dispatch(cursor, self._dialect, self._position, left, lease)
            for name, rows in fresh.items():
                found[name] = found.get(name, []) + rows
        return found

    def _claim(
        self, cursor: CursorWrapper, want: Want, work: claims.Work, lease: int
    ) -> list[Row]:
        recorded, ours = self._ids[want.consumer.name], self._process.leases
        number = recorded.id
        rows: list[Row] = []
        if recorded.is_ordered and not claims.has_turn(cursor, self._dialect, number):
            return rows
        if number in work.suspect:
            rows = claims.claim_suspect(cursor, self._dialect, number, lease, ours)
        room = want.room - len(rows)
        if not room or not (number in work.ready or work.to_promote):
            return rows
        if recorded.is_ordered:
            want = Want(want.consumer, room, want.busy_keys)
            return rows + claims.claim_ordered(
                cursor, self._dialect, number, want, lease, ours
            )
        return rows + claims.claim(cursor, self._dialect, number, room, lease)

    def _open(
        self, consumer: Consumer, rows: Sequence[Row], read: dict[int, WireMessage]
    ) -> Sequence[Delivery]:
        opened = open_rows(consumer, rows, self._context.inbox, read)
        if opened.set_aside:
            self._reading.run(
                lambda cursor: settling.put_off(cursor, self._dialect, opened.set_aside)
            )
        return opened.deliveries

    def note_handled(self, deliveries: Sequence[Delivery]) -> Sequence[bool]:
        return inbox.note(
            connections[self._using], self._dialect, deliveries, self._context.broker
        )

    def wait(self, timeout: float) -> None:
        pause = self._look_at - time.monotonic()
        self._woken.wait(min(timeout, max(pause, SHORTEST_PAUSE)))

    def _keep_house(self) -> None:
        """Be recorded, free what the dead hold, and prune: each when it is due."""
        now = time.monotonic()
        if not self._process.is_entered:
            self._enter()
        self._pulse.start()
        self._notifications.listen()
        if now >= self._rescue_at:
            self._rescue_at = now + self._lease / 3
            self._found_dead += rescue(self._reading, self._lease, self._context)
            self._free_unanswered(now)
            if self._unreleased:
                self.release(())
        self._pruning.run(self._reading)

    def _enter(self) -> None:
        if self._process.was_ended:
            tell_of_loss(self._lease, self._context)
        self._process.enter(self._reading)

    def _free_unanswered(self, now: float) -> None:
        for lease, since in list(self._unanswered.items()):
            self._reading.run(partial(settling.free_lease, lease=lease))
            if now > since + 60.0:  # its commit cannot come any more
                del self._unanswered[lease]

    # ------------------------------------------------------------ settling

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        answers = self._settler.settle(settlements)
        if any(settlement.delivery.deliveries > 1 for settlement in settlements):
            self._woken.set()  # the next suspect may come
        return answers

    def extend(self, deliveries: Sequence[Delivery]) -> list[Settled]:
        self._process.beat(self._reading)
        first, end = self._process.leases
        return [
            Settled.DONE
            if first <= token_of(delivery).lease < end
            else Settled.LOST_LEASE
            for delivery in deliveries
        ]

    def release(self, deliveries: Sequence[Delivery]) -> None:
        left, self._unreleased = [*self._unreleased, *deliveries], []
        if time.monotonic() < self._release_at:  # a stop asks for each consumer
            self._unreleased += left
            raise OperationalError("the server did not answer a moment ago")
        try:
            self._reading.run(
                lambda cursor: settling.release(cursor, self._dialect, left), PATIENCE
            )
        except BaseException:
            self._release_at = time.monotonic() + PATIENCE
            self._unreleased += left
            raise

    # ------------------------------------------------------------ operators

    def stats(self) -> ServerSample:
        # Of its own, for a moment: it takes longer than what others wait for.
        own = OwnConnection(self._using, self._answer_timeout)
        with closing(own) as connection:
            return sampling.sample(connection, self._lease, self._found_dead)

    def dead_letters(self, after: str = "", limit: int = 100) -> list[DeadLetter]:
        (number,) = dead_letters.numbers_of([after]) or (0,)
        rows = self._reading.read(dead_letters.LIST, (number, limit))
        return [dead_letters.read(row) for row in rows]

    def replay(self, ids: Sequence[str]) -> int:
        numbers = dead_letters.numbers_of(ids)
        replayed = self._reading.run(
            lambda cursor: dead_letters.replay(cursor, self._dialect, numbers)
        )
        self.wake()
        return len(replayed)

    def discard(self, ids: Sequence[str]) -> int:
        numbers = dead_letters.numbers_of(ids)
        return len(self._reading.run(partial(dead_letters.discard, numbers=numbers)))

    def replay_history(
        self, consumer: str, kept: HistoryFilter, *, dry_run: bool
    ) -> int:
        recorded = self._find(consumer)
        if dry_run:
            return history.count(self._reading, recorded, kept)
        count = history.hand_out(self._reading, recorded, kept, replayed=True)
        self.wake()
        return count

    def prune(self, older_than: float | None) -> int:
        seconds = self._history if older_than is None else older_than
        return self._in_steps(
            lambda cursor: upkeep.prune(cursor, self._dialect, seconds)
        )

    def _in_steps(self, step: Callable[[CursorWrapper], int]) -> int:
        """Repeat a step, a transaction each, until it finds nothing; return its sum."""
        total = 0
        while count := self._reading.run(step):
            total += count
        return total

    def remove(self, consumer: str, *, discard: bool) -> int:
        recorded = self._find(consumer)
        self._reading.run(partial(recording.unsubscribe, consumer=recorded))
        history.wait_for_dispatches(self._reading)
        broker = None if discard else self._context.broker
        total = self._in_steps(
            lambda cursor: upkeep.clear(cursor, self._dialect, recorded, broker)
        )
        self._reading.run(partial(recording.erase, consumer=recorded))
        self._ids = {}
        return total

    def desired_state(self) -> Mapping[str, ConsumerState]:
        if time.monotonic() < self._undesired_at + 2 * LONGEST_PAUSE:
            return {}
        rows = self._reading.read(recording.DESIRED)
        return dict(map(recording.desired, rows))

    def desire(self, consumer: str, state: ConsumerState) -> None:
        self._find(consumer)
        self._reading.run(partial(recording.desire, consumer=consumer, state=state))
