"""The tables behind the goals, each with a word on how to read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import groups
from benchmarks.figures import GroupResults, Measure, figure_of, ratio
from benchmarks.report.plots import Bar, draw_bars
from benchmarks.report.tables import Column, draw_cases
from benchmarks.targets import added_to_check
from benchmarks.units import write

OURS = frozenset(
    [
        groups.EMIT, groups.EMIT_MAKING, groups.EMIT_UNTYPED,
        groups.BY_PUBLISH, groups.BY_EMIT, groups.BY_EMIT_READ, groups.BY_EMIT_MANY,
        groups.BY_DICT, *map(groups.publish_to, groups.CONSUMERS),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """One group of cases on the page."""

    title: str
    group: str
    words: str
    draw: Callable[[GroupResults, Path], str]


def _table(
    group: str,
    first: str,
    columns: Sequence[tuple[str, str, str]],
    results: GroupResults,
    images: Path,
) -> str:
    made = columns_of(group, columns)
    return draw_cases(first, list(results[group]), made, results)


def columns_of(group: str, wanted: Sequence[tuple[str, str, str]]) -> list[Column]:
    """Return a column for each heading, metric and unit."""

    def reader(metric: str) -> Callable[[str], Measure]:
        return lambda case: Measure(group, case, metric)

    return [Column(heading, reader(metric), unit) for heading, metric, unit in wanted]


def _draw_callers(results: GroupResults, images: Path) -> str:
    def each(case: str) -> Measure:
        return Measure(groups.PUBLISH, case, "each")

    signal = each(groups.SIGNAL)
    times = [("each", "each", "s"), ("own CPU time", "own", "s")]
    columns = [
        *columns_of(groups.PUBLISH, times),
        Column("beside send_robust()", lambda case: ratio(each(case), signal), "x"),
    ]
    title = "What one call costs its caller"
    plot = _draw_bars("bench-emit", title, "s", each, results, images)
    table = draw_cases("call", list(results[groups.PUBLISH]), columns, results)
    return f"{plot}\n\n{table}"


def _draw_flow(consumers: int, results: GroupResults, images: Path) -> str:
    group = groups.flow(consumers)

    def handled(case: str) -> Measure:
        return Measure(group, case, "handled")

    ours = handled(groups.BY_DICT)
    times = [("caller", "caller", "s"), ("handled", "handled", "/s"),
             ("p50", "p50", "s"), ("p99", "p99", "s")]  # fmt: skip
    columns = [
        *columns_of(group, times),
        Column("django-gomq is", lambda case: ratio(ours, handled(case)), "x"),
    ]
    name, title = f"bench-flat-out-{consumers}", f"Events handled, {group}"
    plot = _draw_bars(name, title, "/s", handled, results, images)
    return f"{plot}\n\n{draw_cases('what', list(results[group]), columns, results)}"


def _draw_bars(
    name: str,
    title: str,
    unit: str,
    source_of: Callable[[str], Measure],
    results: GroupResults,
    images: Path,
) -> str:
    """Draw all cases of a group from the best to the worst; return the link."""
    cases = results[source_of("").group]
    found = [(case, figure_of(source_of(case), results)) for case in cases]
    bars = [
        Bar(case, figure, is_ours=case in OURS)
        for case, figure in found
        if figure is not None
    ]
    bars.sort(key=lambda bar: bar.figure.median, reverse=unit == "/s")
    draw_bars(images / f"{name}.svg", title, unit, bars)
    return f"![{title}](images/{name}.svg)"


def _draw_start(results: GroupResults, images: Path) -> str:
    columns = [
        ("takes", "check", "s"), ("prometheus_client alone", "metrics_client", "s"),
        ("import", "import", "s"), ("own modules", "import_own", "s"),
        ("its dependencies", "import_dependencies", "s"),
    ]  # fmt: skip
    table = _table(groups.START, "process", columns, results, images)
    added = write(figure_of(added_to_check(), results), "s")
    return f"{table}\n\nAdded to `manage.py check`: {added}."


SECTIONS = (
    Section(
        "What one emit costs its caller", groups.PUBLISH,
        "*Each* is by the clock: where the dispatcher gets its turn in between, that "
        "counts. *Own CPU time* is of the calling thread alone.",
        _draw_callers,
    ),
    Section(
        "One emit a millisecond", groups.PACED,
        "The dispatcher and the handler threads sleep before each. *Emit* is what the "
        "caller waits, *handler* is from the emit to the entry into each handler. The "
        "last two rows are for scale: caches are cold for everybody.",
        partial(_table, groups.PACED, "to",
                [("emit p50", "emit_p50", "s"), ("emit p99", "emit_p99", "s"),
                 ("handler p50", "p50", "s"), ("handler p99", "p99", "s")]),
    ),
    Section(
        "Events that wait for a commit", groups.COMMIT,
        "From before `BEGIN` until after `COMMIT`, on an SQLite file, for each event. "
        "Half of the events with savepoints are rolled back; what the empty savepoints "
        "cost is taken off.",
        partial(_table, groups.COMMIT, "events",
                [("each", "each", "s"), ("with savepoints", "with_savepoints", "s")]),
    ),
    Section(
        "Flat out, 1 consumer", groups.flow(1),
        "As fast as the consumers follow, until the last message is handled and the "
        "books balance. Who waits at a full queue pays for it in *caller*. The base of "
        "the last column is `emit()` of a dict whose data is read, as the others read "
        "theirs; p50 and p99 are from the emit to the handler, at about 500 a second.",
        partial(_draw_flow, 1),
    ),
    Section("Flat out, 5 consumers", groups.flow(5), "", partial(_draw_flow, 5)),
    Section(
        "Trace ids, on and off", groups.TRACED,
        "Every emit is inside another span that the sampler leaves out, as most "
        "requests are. The SDK is set up in both; on and off differ by "
        '`GOMQ["TRACING"]["ENABLED"]`.',
        partial(_table, groups.TRACED, "trace ids",
                [("one emit()", "each", "s"), ("flat out", "handled", "/s")]),
    ),
    Section(
        "The buffer alone", groups.BUFFER, "",
        partial(_table, groups.BUFFER, "buffer",
                [("one put", "put", "s"), ("thread to thread", "moved", "/s")]),
    ),
    Section(
        "Idle", groups.IDLE, "",
        partial(_table, groups.IDLE, "process",
                [("of a core", "cpu", "%"), ("wake-ups a second", "switches", ""),
                 ("threads", "threads", "")]),
    ),
    Section(
        "Start-up", groups.START,
        "CPU time of new processes, in turn. The goal is the difference of the first "
        "two, without what importing `prometheus_client` takes alone.",
        _draw_start,
    ),
)  # fmt: skip
