"""Ends deliveries at the server, keeps their leases, and gives them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django_gomq.bus.backend import Settled, Settlement
from django_gomq.bus.delivery import ACK as DONE
from django_gomq.bus.delivery import DeadLettered, Delivery, RetryAfter

from .dead_letters import written
from .entries import Place, Token, fields_again, place_of, token_of
from .keys import Keys
from .scripts import ACK, AGAIN, BURY, EXTEND, Command, Script
from .server import (
    IdleConnections,
    ServerConnection,
    UnansweredError,
    is_away,
    is_lost_group,
)

CHUNK: Final = 500
"""Entries of one script: it keeps the server for some milliseconds."""


class Settling:
    """Settles what one process holds; thread-safe."""

    def __init__(
        self, connections: IdleConnections, keys: Keys, owner: str, held: set[Place]
    ) -> None:
        self._connections, self._keys, self._owner, self._held = (
            connections,
            keys,
            owner,
            held,
        )
        self._unsure: set[Place] = set()
        """What the server was told the end of, and has not answered."""

    def settle(
        self, settlements: Sequence[Settlement]
    ) -> tuple[list[Settled], Sequence[Exception]]:
        """Return the answers, in their order, and why some are KEPT.

        Raises what kept all of them from being told.
        """
        tokens = [token_of(settlement.delivery) for settlement in settlements]
        others = [
            nth
            for nth, settlement in enumerate(settlements)
            if settlement.outcome is not DONE
            and isinstance(settlement.outcome, RetryAfter | DeadLettered)
        ]
        acks = sorted(set(range(len(tokens))).difference(others))
        parts = _by_group(tokens, acks)
        commands = [self._fenced(ACK, tokens, part) for part in parts]
        commands += [self._end(settlements[nth], tokens[nth]) for nth in others]
        found: list[Any] = [None] * len(tokens)
        with self._connections.borrow() as connection:
            answers = self._ask(connection, commands, tokens)
            for part, answer in zip(parts, answers, strict=False):
                spread = answer if isinstance(answer, list) else [answer] * len(part)
                for nth, told in zip(part, spread, strict=True):
                    found[nth] = told
            for nth, answer in zip(others, answers[len(parts) :], strict=True):
                found[nth] = answer
            return self._read_all(connection, tokens, found)

    def _read_all(
        self, connection: ServerConnection, tokens: Sequence[Token], found: list[Any]
    ) -> tuple[list[Settled], Sequence[Exception]]:
        if found.count(1) == len(found):  # as nearly always
            places = [place_of(token) for token in tokens]
            self._unsure.difference_update(places)
            self._held.difference_update(places)
            return [Settled.DONE] * len(tokens), ()
        errors = [answer for answer in found if isinstance(answer, Exception)]
        return [
            self._read(connection, token, answer)
            for token, answer in zip(tokens, found, strict=True)
        ], errors

    def _ask(
        self,
        connection: ServerConnection,
        commands: Sequence[Command],
        tokens: Sequence[Token],
    ) -> list[Any]:
        try:
            answers = connection.ask(commands)
        except UnansweredError:
            self._unsure.update(map(place_of, tokens))
            raise
        for answer in answers:
            if is_away(answer) or isinstance(answer, UnansweredError):
                self._unsure.update(map(place_of, tokens))
                raise answer
        return answers

    def _read(self, connection: ServerConnection, token: Token, answer: Any) -> Settled:
        place = place_of(token)
        if isinstance(answer, Exception) and not is_lost_group(answer):
            return Settled.KEPT
        is_done = answer == 1 or (
            place in self._unsure and self._is_gone(connection, token)
        )
        self._unsure.discard(place)
        self._held.discard(place)
        return Settled.DONE if is_done else Settled.LOST_LEASE

    def _is_gone(self, connection: ServerConnection, token: Token) -> bool:
        """Whether nobody has it: then it is what we told that was done."""
        place = (token.stream, token.consumer, token.id, token.id)
        (rows,) = connection.ask([("XPENDING", *place, 1)])
        return not rows

    def _fenced(
        self, script: Script, tokens: Sequence[Token], part: Sequence[int]
    ) -> Command:
        first = tokens[part[0]]
        ids = [tokens[nth].id for nth in part]
        group = (first.consumer, self._owner, first.deliveries)
        return script([first.stream], *group, *ids)

    def _end(self, settlement: Settlement, token: Token) -> Command:
        outcome = settlement.outcome
        if isinstance(outcome, RetryAfter):
            fails = outcome.error is not None
            return self._hand_again(token, outcome.delay, fails=fails)
        letter = settlement.dead_letter
        assert letter is not None  # noqa: S101 - the bus makes one of each
        keys, name = self._keys, token.consumer
        names = [token.stream, keys.dead(name), keys.dead_of]
        place = (name, self._owner, token.id, token.deliveries)
        return BURY(names, *place, *written(letter, token))

    def _hand_again(
        self,
        token: Token,
        delay: float = 0.0,
        *,
        fails: bool = False,
        unstarted: bool = False,
    ) -> Command:
        keys, again = self._keys, self._keys.again(token.consumer)
        names = [token.stream, again, keys.later(again), keys.serial]
        is_first = fails and token.failed is None
        return AGAIN(
            names,
            token.consumer,
            self._owner,
            token.id,
            token.deliveries,
            f"{delay * 1000:.0f}",
            int(is_first),
            *fields_again(token, fails=fails, unstarted=unstarted),
        )

    def set_aside(
        self, connection: ServerConnection, pairs: Sequence[tuple[Token, float]]
    ) -> None:
        """Have entries that are for other code come again later; not counted."""
        self._held.difference_update(place_of(token) for token, _ in pairs)
        again = (
            self._hand_again(token, pause, unstarted=True) for token, pause in pairs
        )
        connection.run(*again)

    def extend(
        self, connection: ServerConnection, deliveries: Sequence[Delivery]
    ) -> list[Settled]:
        """Keep leases; DONE or LOST_LEASE for each, in their order."""
        tokens = [token_of(delivery) for delivery in deliveries]
        parts = _by_group(tokens, range(len(tokens)))
        found = [Settled.LOST_LEASE] * len(tokens)
        commands = [self._fenced(EXTEND, tokens, part) for part in parts]
        for part, told in zip(parts, connection.ask(commands), strict=True):
            answers = [0] * len(part) if is_lost_group(told) else told
            if isinstance(answers, Exception):
                raise answers
            for nth, answer in zip(part, answers, strict=True):
                if answer:
                    found[nth] = Settled.DONE
                else:
                    self._held.discard(place_of(tokens[nth]))
        return found

    def release(self, tokens: Sequence[Token], limit: float) -> None:
        """Hand what was not started to whoever asks next; not counted."""
        commands = [self._hand_again(token, unstarted=True) for token in tokens]
        self._held.difference_update(map(place_of, tokens))
        with self._connections.borrow() as connection:
            connection.run(*commands, timeout=limit)


def _by_group(tokens: Sequence[Token], chosen: Sequence[int]) -> Sequence[list[int]]:
    """Return these in such parts as one script takes.

    That is those of one group of one stream that were handed out equally often.
    """
    groups: dict[tuple[str, str, int], list[int]] = {}
    for nth in chosen:
        token = tokens[nth]
        alike = (token.stream, token.consumer, token.deliveries)
        groups.setdefault(alike, []).append(nth)
    return [
        part[start : start + CHUNK]
        for part in groups.values()
        for start in range(0, len(part), CHUNK)
    ]
