"""Judges what all processes of a run have written down, and what the tables hold."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from .journal import Entry, Kind

CONSUMERS: Final = ("plain", "ordered", "batch", "flaky", "asynchronous")
MAX_GAP: Final = 20.0
"""Seconds from the end of a handler to a kill that explains why it was run again: it is
settled within some hundredths, which a busy machine makes longer."""
MAX_BLIND: Final = 20.0
"""Seconds in which a process that stood still may begin what is not its any more: until
its next beat, a second on an idle machine."""


def fails(name: str, message: str, attempt: int) -> bool:
    """Whether a consumer fails with a message: one of nine once, of 60 always."""
    number = zlib.crc32(f"{name} {message}".encode())
    if name == "flaky" and number % 60 == 0:
        return True
    return name in {"flaky", "ordered"} and number % 9 == 0 and attempt == 1


def is_slow(name: str, message: str) -> bool:
    """Whether a consumer takes long for a message, which fails at first.

    So it is still in work where another process has taken it over.
    """
    number = zlib.crc32(f"{name} {message}".encode())
    return name in {"flaky", "ordered"} and number % 360 == 0


EVERYBODY: Final = 0
"""In the place of a process: all of them."""


class Stall(msgspec.Struct, frozen=True):
    """A process, or everybody, that kept no lease from a moment to another."""

    pid: int
    began: float
    ended: float

    def explains_take_over(self, run: Sequence[Entry], start: float) -> bool:
        """Whether others may have begun then what this process had."""
        return (
            self.pid in {EVERYBODY, run[0].pid}
            and run[0].time < self.ended
            and self.began < start
            and self.began - run[-1].time < MAX_GAP
        )

    def explains_start(self, pid: int, start: float) -> bool:
        """Whether this process may have begun then what others had by now.

        It finds out at its next beat.
        """
        is_meant = self.pid in {EVERYBODY, pid}
        return is_meant and self.began < start < self.ended + MAX_BLIND


def _killed(kills: Mapping[int, Sequence[float]], entry: Entry) -> float | None:
    """Return when the process that wrote this was killed, if it was."""
    times = kills.get(entry.pid, ())
    return next((moment for moment in times if moment >= entry.time), None)


def _is_blind(start: Entry, stalls: Sequence[Stall]) -> bool:
    return any(stall.explains_start(start.pid, start.time) for stall in stalls)


def _explain(
    stalls: Sequence[Stall],
    run: Sequence[Entry],
    start: Entry,
    runs: Sequence[Sequence[Entry]],
) -> bool:
    """Whether stalls explain a start after that run of the same message."""
    if any(stall.explains_take_over(run, start.time) for stall in stalls):
        return True
    if _is_blind(run[0], stalls):
        return True
    # What it has begun before it claimed anew, but for an ordered consumer, which waits
    # for its retries in the process.
    before = {one[0].pid for one in runs if one[0].time < start.time}
    is_first = start.consumer == "ordered" or start.pid not in before
    return is_first and _is_blind(start, stalls)


class History(msgspec.Struct):
    """What was committed, what was handled, who was killed, who gave up."""

    committed: frozenset[str]
    entries: tuple[Entry, ...]
    dead_letters: Mapping[tuple[str, str], str]
    """Errors, by consumer and message."""
    is_transactional: bool = True
    """Whether an event is accepted with its commit; else when its receipt says so."""
    is_ordered: bool = True
    """Whether a key is with one process at a time."""
    deaths: int = 4
    """So many kills that a message was held at make it a dead letter."""
    lease: float = 6.0

    def __post_init__(self) -> None:
        self.entries = tuple(sorted(self.entries, key=lambda entry: entry.time))

    @property
    def accepted(self) -> frozenset[str]:
        """What must be handled."""
        if self.is_transactional:
            return self.committed
        return frozenset(self._of_kind("accepted"))

    def _of_kind(self, kind: Kind) -> Iterable[str]:
        return (each.message for each in self.entries if each.kind == kind)

    @property
    def kills(self) -> Mapping[int, list[float]]:
        """When processes were killed; a system gives numbers again."""
        kills: dict[int, list[float]] = defaultdict(list)
        for each in self.entries:
            if each.kind == "kill":
                kills[each.pid].append(each.time)
        return kills

    @property
    def stalls(self) -> Sequence[Stall]:
        """Who kept no lease for a while.

        Those are the processes that were stopped, and everybody while the server was
        away for so long that leases may have ended: each is extended three times.
        """
        began: dict[int, float] = {}
        stalls = []
        for each in self.entries:
            if each.kind == "stall":
                began[each.pid] = each.time
            elif each.kind == "resume":
                stalls.append(Stall(each.pid, began[each.pid], each.time))
            elif each.kind == "crash":
                began[EVERYBODY] = each.time
            elif each.kind == "up" and each.time - began[EVERYBODY] > self.lease / 2:
                stalls.append(Stall(EVERYBODY, began[EVERYBODY], each.time))
        return stalls

    @property
    def handled(self) -> set[tuple[str, str]]:
        """What was handled to the end."""
        return {
            (each.consumer, each.message) for each in self.entries if each.kind == "end"
        }

    def problems(self) -> list[str]:
        """Return everything that no kill explains."""
        return [
            *self._lost(),
            *self._never_committed(),
            *self._wrong_dead_letters(),
            *self._unexplained_repeats(),
            *(self._out_of_order() if self.is_ordered else ()),
            *(self._at_once() if self.is_ordered else ()),
        ]

    def _lost(self) -> Iterable[str]:
        handled = self.handled
        for consumer in CONSUMERS:
            for message in sorted(self.accepted):
                name = (consumer, message)
                if name not in handled and name not in self.dead_letters:
                    yield f"lost: {message} by {consumer}"
        for message in sorted(set(self._of_kind("accepted")) - self.committed):
            yield f"committed, and not in the table: {message}"

    def _never_committed(self) -> Iterable[str]:
        seen = set(self._of_kind("start"))
        for message in sorted(seen - self.committed):
            yield f"handled, though rolled back: {message}"
        for message in sorted(seen.intersection(self._of_kind("refused"))):
            yield f"handled, though refused: {message}"

    def _wrong_dead_letters(self) -> Iterable[str]:
        for (consumer, message), error in self.dead_letters.items():
            if not fails(consumer, message, attempt=2) and not self._kills(error):
                yield f"dead letter: {message} by {consumer}: {error}"

    def _kills(self, error: str) -> bool:
        """Whether a message was given up as too many died that held it."""
        return (
            "handed out" in error and sum(map(len, self.kills.values())) >= self.deaths
        )

    def _runs(self) -> Mapping[tuple[str, str], list[list[Entry]]]:
        """Return, by consumer and message, each start with what ended it."""
        runs: dict[tuple[str, str], list[list[Entry]]] = defaultdict(list)
        for each in self.entries:
            if each.kind == "start":
                runs[each.consumer, each.message].append([each])
            elif each.kind in {"end", "fail"}:
                mine = [
                    run
                    for run in runs[each.consumer, each.message]
                    if run[0].pid == each.pid
                ]
                mine[-1].append(each)
        return runs

    def _unexplained_repeats(self) -> Iterable[str]:
        kills, stalls = self.kills, self.stalls
        for (consumer, message), runs in self._runs().items():
            for run, following in pairwise(runs):
                last, next_ = run[-1], following[0]
                if last.kind == "fail" and last.time < next_.time:
                    continue
                if _explain(stalls, run, next_, runs):
                    continue
                killed = _killed(kills, last)
                if killed is None or killed > next_.time:
                    why = "while the first may still run"
                    yield f"again: {message} by {consumer} in {last.pid}, {why}"
                elif last.kind == "end" and killed - last.time > MAX_GAP:
                    seconds = killed - last.time
                    yield f"again: {message} by {consumer}, {seconds:.1f} s unsettled"

    def _out_of_order(self) -> Iterable[str]:
        """Yield what of a key was started before an earlier one of it was done."""
        done = {
            each.message: each.time
            for each in reversed(self.entries)
            if each.kind == "end" and each.consumer == "ordered"
        }
        by_key: dict[str, list[str]] = defaultdict(list)
        for message in sorted(self.committed):
            by_key[message.rpartition("-")[0]].append(message)
        starts: dict[str, float] = {}
        stalls = self.stalls
        for each in self.entries:
            is_ordered = each.kind == "start" and each.consumer == "ordered"
            if is_ordered and not _is_blind(each, stalls):
                starts.setdefault(each.message, each.time)
        for messages in by_key.values():
            there = [one for one in messages if one in done]
            for before, after in pairwise(there):
                if starts.get(after, done[before]) < done[before]:
                    yield f"order: {after} started before {before} was done"

    def _is_blind(self, start: Entry) -> bool:
        return any(stall.explains_start(start.pid, start.time) for stall in self.stalls)

    def _at_once(self) -> Iterable[str]:
        """Yield what of a key was started while another one of it was in work."""
        kills, stalls = self.kills, self.stalls
        by_key: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
        for (consumer, message), runs in self._runs().items():
            for run in runs if consumer == "ordered" else ():
                start = run[0]
                if _is_blind(start, stalls):
                    continue
                ends = [run[-1].time] if len(run) > 1 else []
                killed = _killed(kills, start)
                ends += [] if killed is None else [killed]
                # From then on others may have taken it over.
                ends += [
                    stall.began
                    for stall in stalls
                    if stall.pid == start.pid and stall.ended > start.time
                ]
                interval = start.time, min(ends, default=start.time), message
                by_key[message.rpartition("-")[0]].append(interval)
        for intervals in by_key.values():
            for (_, end, before), (begun, _, after) in pairwise(sorted(intervals)):
                if begun < end:
                    yield f"at once: {after} started while {before} was in work"

    def summary(self) -> str:
        """Return the numbers in some lines."""
        kinds = Counter(each.kind for each in self.entries)
        runs = self._runs()
        repeats = Counter[str]()
        for (consumer, _), of_one in runs.items():
            ends = sum(run[-1].kind == "end" for run in of_one)
            repeats[consumer] += max(0, ends - 1)
        unfinished = sum(
            run[-1].kind == "start" for of_one in runs.values() for run in of_one
        )
        given_up = sum(map(self._kills, self.dead_letters.values()))
        twice = ", ".join(f"{name} {repeats[name]}" for name in CONSUMERS)
        return (
            f"{kinds['kill']} kills, {kinds['stall']} stalls, "
            f"{kinds['crash']} crashes of the server, "
            f"{len(self.accepted)} events accepted, {kinds['refused']} refused, "
            f"{kinds['unknown']} unknown, "
            f"{len(self.handled)} handled of {len(CONSUMERS)} consumers, "
            f"{len(self.dead_letters)} dead letters ({given_up} after kills), "
            f"{kinds['fail']} failures\n"
            f"  killed in a handler: {unfinished}; handled twice: {twice}"
        )
