"""Ends deliveries, by the lease that they are held by."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from typing import Final

import msgspec
from django.db.backends.utils import CursorWrapper

from django_gomq.bus.backend import Settled, Settlement
from django_gomq.bus.delivery import Ack, DeadLettered, Delivery, RetryAfter

from . import dead_letters, outcomes
from .connection import Dialect, OwnConnection, is_of_text
from .rows import READY, SCHEDULED, SUSPECT, Token, among, token_of

_OURS: Final = "WHERE event_id = %s AND consumer_id = %s AND lease = %s"
_DELETE: Final = f"DELETE FROM gomq_delivery {_OURS}"
_BEFORE: Final = None
"""Done by an earlier commit, whose answer was lost."""
_AGAIN: Final = f"CASE WHEN deaths > 0 THEN {SUSPECT} ELSE {READY} END"
_FREE: Final = f"UPDATE gomq_delivery SET state = {_AGAIN}, lease = NULL"


class Settling:
    """Settles what one process holds; thread-safe."""

    def __init__(self, connection: OwnConnection, *, keeps_outcomes: bool) -> None:
        """``keeps_outcomes``: a row tells how each ended, until its event is pruned."""
        self._connection = connection
        self._keeps_outcomes = keeps_outcomes
        self._unsure: set[Token] = set()
        """Whose end was committed, perhaps: no answer came."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """End these deliveries; those whose lease is gone are left as they are.

        Blocks; raises what the database raises.
        """
        try:
            return self._settle_once(settlements)
        except Exception as error:
            if not is_of_text(error):
                raise
            return self._settle_once([_in_ascii(each) for each in settlements])

    def _settle_once(self, settlements: Sequence[Settlement]) -> list[Settled]:
        answers: list[Settled] = []

        def step(cursor: CursorWrapper) -> None:
            answers[:] = self._settle(cursor, settlements)

        try:
            self._connection.run(step)
        except BaseException:
            if answers:  # so it was the commit
                self._unsure.update(token_of(each.delivery) for each in settlements)
            raise
        if self._unsure:
            tokens = [token_of(each.delivery) for each in settlements]
            self._unsure.difference_update(tokens)
        return answers

    def _settle(
        self, cursor: CursorWrapper, settlements: Sequence[Settlement]
    ) -> list[Settled]:
        dialect = self._connection.dialect
        answers = _settle(cursor, dialect, settlements, self._unsure)
        if self._keeps_outcomes:
            pairs = zip(settlements, answers, strict=True)
            ended = [settlement for settlement, told in pairs if told is Settled.DONE]
            outcomes.keep(cursor, dialect, ended)
        return [Settled.DONE if told is _BEFORE else told for told in answers]


def _in_ascii(settlement: Settlement) -> Settlement:
    letter = settlement.dead_letter
    if letter is None:
        return settlement
    return msgspec.structs.replace(
        settlement, dead_letter=dead_letters.in_ascii(letter)
    )


def _settle(
    cursor: CursorWrapper,
    dialect: Dialect,
    settlements: Sequence[Settlement],
    unsure: Container[Token],
) -> list[Settled | None]:
    if settlements and all(isinstance(each.outcome, Ack) for each in settlements):
        acked = [each.delivery for each in settlements]
        if _on_all(cursor, "DELETE FROM gomq_delivery", acked) == len(acked):
            return [Settled.DONE] * len(acked)
        cursor.execute("ROLLBACK")  # some are not ours: ask of each
        cursor.execute(dialect.begin)
    return [
        _settle_one(cursor, dialect, settlement, unsure) for settlement in settlements
    ]


def _on_all(cursor: CursorWrapper, change: str, deliveries: Iterable[Delivery]) -> int:
    """Change the rows of these that are still held; return how many were."""
    claims: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for token in map(token_of, deliveries):
        claims[token.consumer, token.lease].append(token.event)
    count = 0
    for claim, events in claims.items():
        cursor.execute(
            f"{change} WHERE consumer_id = %s AND lease = %s "
            f"AND event_id {among(events)}",
            claim,
        )
        count += cursor.rowcount
    return count


def _values(delivery: Delivery) -> tuple[int, int, int]:
    token = token_of(delivery)
    return token.event, token.consumer, token.lease


def _settle_one(
    cursor: CursorWrapper,
    dialect: Dialect,
    settlement: Settlement,
    unsure: Container[Token],
) -> Settled | None:
    values = _values(settlement.delivery)
    first_failed: float | None = None
    match settlement.outcome:
        case RetryAfter(delay, error):
            # It has ended an attempt, so it kills no processes.
            cursor.execute(
                f"UPDATE gomq_delivery SET state = {SCHEDULED}, lease = NULL, "
                f"due = {dialect.now} + %s, attempt = attempt + %s, deaths = 0"
                f"{'' if error is None else _failed(dialect)} {_OURS}",
                (delay, int(error is not None), *values),
            )
        case DeadLettered():
            cursor.execute(f"SELECT first_failed FROM gomq_delivery {_OURS}", values)
            (first_failed,) = cursor.fetchone() or (None,)
            cursor.execute(_DELETE, values)
        case _:
            cursor.execute(_DELETE, values)
    if cursor.rowcount != 1:
        is_unsure = token_of(settlement.delivery) in unsure
        is_done = is_unsure and _is_as_told(cursor, settlement)
        return _BEFORE if is_done else Settled.LOST_LEASE
    if settlement.dead_letter is not None:
        letter = settlement.dead_letter
        dead_letters.keep(cursor, dialect, values[0], letter, first_failed)
    return Settled.DONE


def _is_as_told(cursor: CursorWrapper, settlement: Settlement) -> bool:
    """Whether the row is, or is gone, as this settlement leaves it."""
    event, consumer, _ = _values(settlement.delivery)
    cursor.execute(
        "SELECT state, attempt FROM gomq_delivery "
        "WHERE event_id = %s AND consumer_id = %s",
        (event, consumer),
    )
    row = cursor.fetchone()
    if row is None and settlement.dead_letter is not None:
        # Else somebody has handled it since, as the lease was lost.
        return dead_letters.is_kept(cursor, event, settlement.dead_letter)
    if row is None or not isinstance(settlement.outcome, RetryAfter):
        return row is None
    # The retry may have been given to somebody since.
    return bool(row[0] == SCHEDULED or row[1] > settlement.delivery.attempt)


def _failed(dialect: Dialect) -> str:
    return f", first_failed = coalesce(first_failed, {dialect.now})"


def release(
    cursor: CursorWrapper, dialect: Dialect, deliveries: Sequence[Delivery]
) -> None:
    """Make deliveries ready again that were not started, or wait for a retry here.

    The attempts of an ordered consumer are known to its process alone until then.
    """
    now = time.time()
    for delivery in deliveries:
        if delivery.first_failed is not None:
            cursor.execute(
                "UPDATE gomq_delivery SET attempt = %s, "
                f"first_failed = coalesce(first_failed, {dialect.now} - %s) {_OURS}",
                (delivery.attempt, now - delivery.first_failed, *_values(delivery)),
            )
    _on_all(cursor, _FREE, deliveries)


def free_lease(cursor: CursorWrapper, lease: int) -> None:
    """Make ready again what a claim holds that was never answered."""
    cursor.execute(
        f"UPDATE gomq_delivery SET state = {_AGAIN}, lease = NULL WHERE lease = %s",
        (lease,),
    )


def put_off(
    cursor: CursorWrapper, dialect: Dialect, waits: Sequence[tuple[Token, float]]
) -> None:
    """Give deliveries back that were not started, each for so many seconds."""
    cursor.executemany(
        f"UPDATE gomq_delivery SET state = {SCHEDULED}, lease = NULL, "
        f"due = {dialect.now} + %s {_OURS}",
        [(pause, token.event, token.consumer, token.lease) for token, pause in waits],
    )
