"""The goals: which figure, and how large it may be or must be; it measures nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import groups
from benchmarks.figures import (
    Derived,
    Figure,
    GroupResults,
    Measure,
    Source,
    figure_of,
    ratio,
)


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure with a limit that it must not pass, or must reach."""

    name: str
    what: str
    source: Source
    limit: float
    unit: str
    is_least: bool = False
    """Whether the limit is the least that will do; else it is the most."""

    def reached(self, figure: Figure) -> float:
        """Return how far it is met: 1.0 and more is."""
        if self.is_least:
            return figure.median / self.limit
        return self.limit / max(figure.median, 1e-12)

    def figure(self, results: GroupResults) -> Figure | None:
        """Return what was measured."""
        return figure_of(self.source, results)


def goals() -> Iterator[Goal]:
    """Yield all goals of `make bench`, in their order."""
    yield from _publish_goals()
    yield from _emit_goals()
    yield from _paced_emit_goals()
    yield from _commit_goals()
    yield from _flow_goals("G2", 1, 1e6, 1.9, {"Huey, memory": 15, "Dramatiq, stub": 55,
        "FastStream, test broker": 200, "bubus, serial": 750})  # fmt: skip
    yield from _flow_goals(
        "G3", 5, 500e3, 1.8, {"Huey, memory": 38, "Dramatiq, stub": 125}
    )
    yield from _latency_goals()
    yield from _trace_goals()
    yield from _buffer_goals()
    yield _start_goal()


def _publish_goals() -> Iterator[Goal]:
    signal = Measure(groups.PUBLISH, groups.SIGNAL, "each")
    for count in groups.CONSUMERS:
        case = groups.publish_to(count)
        each = Measure(groups.PUBLISH, case, "each")
        yield Goal("G1", f"one {case}", each, 500e-9, "s")
        yield Goal("G1", "... beside send_robust()", ratio(each, signal), 0.3, "x")


def _emit_goals() -> Iterator[Goal]:
    signal = Measure(groups.PUBLISH, groups.SIGNAL, "each")
    for case in (groups.EMIT, groups.EMIT_MAKING):
        each = Measure(groups.PUBLISH, case, "each")
        yield Goal("G1b", f"one {case}", each, 1.5e-6, "s")
        yield Goal("G1b", "... beside send_robust()", ratio(each, signal), 0.8, "x")


def _paced_emit_goals() -> Iterator[Goal]:
    for count in groups.CONSUMERS:
        median = Measure(groups.PACED, groups.to(count), "emit_p50")
        what = f"one emit() at 1,000/s, {groups.to(count)}, p50"
        yield Goal("G1c", what, median, 6e-6, "s")


def _commit_goals() -> Iterator[Goal]:
    def each(case: str) -> Measure:
        return Measure(groups.COMMIT, case, "each")

    first, usual, last = map(groups.events, groups.COUNTS)
    what = "each event of one commit"
    yield Goal("G1d", f"{what}, {usual}", each(usual), 1e-6, "s")
    yield Goal(
        "G1d", f"{what}, {groups.SAVEPOINTS}", each(groups.SAVEPOINTS), 1e-6, "s"
    )
    linear = ratio(each(last), each(first))
    # Linear, but for what a hundred times as many objects do to caches.
    yield Goal("G1d", f"... {last} beside {first}", linear, 1.25, "x")


def _flow_goals(
    name: str, consumers: int, least: float, beside_signal: float, peers: dict[str, int]
) -> Iterator[Goal]:
    group = groups.flow(consumers)

    def handled(case: str) -> Measure:
        return Measure(group, case, "handled")

    ours = handled(groups.BY_PUBLISH)
    yield Goal(name, group, ours, least, "/s", is_least=True)
    signal = ratio(ours, handled(groups.SIGNAL_FLOW))
    yield Goal(
        name, "... beside send_robust()", signal, beside_signal, "x", is_least=True
    )
    for peer, times in peers.items():
        beside = ratio(ours, handled(peer))
        yield Goal(name, f"... beside {peer}", beside, times, "x", is_least=True)


def _latency_goals() -> Iterator[Goal]:
    for count, median in ((1, 40e-6), (5, 90e-6)):
        case = groups.to(count)
        what = f"emit() to handler at 1,000/s, {case}"
        for metric, limit in (("p50", median), ("p99", 300e-6)):
            source = Measure(groups.PACED, case, metric)
            yield Goal("G4", f"{what}, {metric}", source, limit, "s")


def _trace_goals() -> Iterator[Goal]:
    def on_beside_off(metric: str) -> Derived:
        return ratio(
            Measure(groups.TRACED, groups.TRACED_ON, metric),
            Measure(groups.TRACED, groups.TRACED_OFF, metric),
        )

    what = "trace ids on beside off"
    yield Goal("G5", f"{what}, one emit()", on_beside_off("each"), 1.2, "x")
    handled = on_beside_off("handled")
    yield Goal("G5", f"{what}, flat out", handled, 0.85, "x", is_least=True)


def _buffer_goals() -> Iterator[Goal]:
    def moved(case: str) -> Measure:
        return Measure(groups.BUFFER, case, "moved")

    ours = moved(groups.BUFFERED)
    put = Measure(groups.BUFFER, groups.BUFFERED, "put")
    yield Goal("G6", "the buffer alone, one put", put, 90e-9, "s")
    yield Goal("G6", "... thread to thread", ours, 4e6, "/s", is_least=True)
    for kind, times in (("Queue", 4.0), ("PriorityQueue", 5.8)):
        beside = ratio(ours, moved(f"queue.{kind}"))
        yield Goal("G6", f"... beside queue.{kind}", beside, times, "x", is_least=True)


def added_to_check() -> Derived:
    """Return what the app adds to `manage.py check`, without the metrics client's."""
    return Derived(
        lambda with_app, without, client: with_app - without - client,
        (
            Measure(groups.START, groups.CHECK_WITH, "check"),
            Measure(groups.START, groups.CHECK, "check"),
            Measure(groups.START, groups.CHECK, "metrics_client"),
        ),
    )


def _start_goal() -> Goal:
    return Goal("start", "added to manage.py check", added_to_check(), 30e-3, "s")
