"""The curves: at which sizes something is measured, and what is drawn of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.figures import Measure
from benchmarks.plan import Case, Group, Scale

AT_REST = "at rest"
PASSING = "one million messages through"
DJANGO = "a new Django project"
WITH_APP = "the same, with django_gomq"
WITH_CONSUMERS = "the same, with 30 consumers running"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot, one column of its table."""

    label: str
    metric: str
    unit: str
    prefix: str = ""
    """Of the cases' names, where several cases stand at one size."""
    is_apart: bool = False
    """Whether it has a panel of its own, as others of its unit are far away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One thing that grows, and what is measured meanwhile."""

    name: str
    title: str
    size: str
    """What grows: the first column, the x axis."""
    sizes: Sequence[int]
    target: str
    option: str
    """The option of the case that takes the size."""
    options: Mapping[str, object]
    lines: Sequence[Line]
    is_fresh: bool = False
    size_metric: str = ""
    """The metric that tells the size, where the option does not."""
    variants: Mapping[str, Mapping[str, object]] | None = None
    """Further options by prefix, where several cases stand at one size."""

    def source(self, line: Line, size: int) -> Measure:
        """Return the figure of a line at one size."""
        return Measure(self.name, f"{line.prefix}{size}", line.metric)

    def group(self, scale: Scale) -> Group:
        """Return the cases, one for each size; a quick run leaves the largest out."""
        sizes = [size for size in self.sizes if scale.part == 1.0 or size <= 1000]  # noqa: PLR2004
        variants = self.variants or {"": {}}
        cases = [
            Case(
                name=f"{prefix}{size}",
                target=f"benchmarks.curves.{self.target}",
                options={**self.options, **more, self.option: size},
                is_fresh=self.is_fresh,
            )
            for size in sizes
            for prefix, more in variants.items()
        ]
        warm_ups = 0 if self.is_fresh else 1
        return Group(name=self.name, cases=cases, runs=scale.runs, warm_ups=warm_ups)


PUBLISH = Line("one publish()", "publish", "s")
HANDLED = Line("handled", "handled", "/s")


def curves(scale: Scale) -> Iterator[Curve]:
    """Yield all curves of `make bench-curves`."""
    yield Curve(
        name="consumers", title="Consumers of one event type", size="consumers",
        sizes=(1, 2, 5, 10, 20, 50, 100), target="load:consumers", option="count",
        options={"messages": scale.of(5_000)}, lines=(PUBLISH, HANDLED),
    )  # fmt: skip
    yield Curve(
        name="types", title="Event types, published in turn", size="event types",
        sizes=(1, 10, 100, 1_000, 10_000), target="load:event_types", option="count",
        options={"messages": scale.of(20_000)},
        lines=(PUBLISH, HANDLED, Line("first publish() of each", "first", "s")),
    )  # fmt: skip
    yield Curve(
        name="patterns", title="Patterns of other consumers", size="patterns",
        sizes=(1, 10, 100, 1_000), target="load:patterns", option="count", options={},
        lines=(PUBLISH, Line("first publish() of a new type", "first", "s")),
    )  # fmt: skip
    yield Curve(
        name="bodies", title="Size of the body", size="bytes",
        sizes=(100, 1_000, 10_000, 100_000, 262_144), target="load:bodies",
        option="size", options={"messages": scale.of(2_000)},
        lines=(PUBLISH, Line("one emit()", "emit", "s"), HANDLED),
    )  # fmt: skip
    yield from _more_curves(scale)


def _more_curves(scale: Scale) -> Iterator[Curve]:
    yield Curve(
        name="waiting", title="Messages that wait", size="messages",
        sizes=(1, 100, 1_000, 10_000, 100_000, 1_000_000), target="space:waiting",
        option="count", options={}, is_fresh=True,
        lines=(PUBLISH, Line("memory grew by", "grown", "B"),
               Line("each", "bytes_each", "B", is_apart=True)),
    )  # fmt: skip
    yield Curve(
        name="threads", title="Threads that emit at once", size="threads",
        sizes=(1, 2, 4, 8, 16), target="load:threads", option="count",
        options={"messages": scale.of(30_000)}, lines=(HANDLED,),
    )  # fmt: skip
    yield Curve(
        name="scrape", title="Series in a scrape", size="consumers",
        sizes=(1, 4, 13, 40, 130, 400), target="scrape:scrape", option="consumers",
        options={}, size_metric="series",
        lines=(Line("text", "text", "s"), Line("OpenMetrics", "openmetrics", "s"),
               Line("text", "bytes", "B")),
    )  # fmt: skip
    yield Curve(
        name="workers", title="Worker processes", size="processes",
        sizes=(1, 2, 4, 8, 16), target="workers:forked", option="count", options={},
        is_fresh=True,
        variants={"": {"with_app": True}, "Django, ": {"with_app": False}},
        lines=(Line("30 consumers running", "pss", "B"),
               Line("Django alone", "pss", "B", "Django, ")),
    )  # fmt: skip


def memory_groups(scale: Scale) -> Iterator[Group]:
    """Yield what is measured once, not at several sizes."""
    apps = ["django_gomq"]
    rest = [
        _memory(DJANGO, "at_rest", apps=[], consumers=0),
        _memory(WITH_APP, "at_rest", apps=apps, consumers=0),
        _memory(WITH_CONSUMERS, "at_rest", apps=apps, consumers=30),
    ]
    yield Group(name=AT_REST, cases=rest, runs=scale.runs, warm_ups=0)
    passing = [_memory(PASSING, "passing", messages=scale.of(1_000_000))]
    yield Group(name=PASSING, cases=passing, runs=min(scale.runs, 3), warm_ups=0)


def _memory(name: str, function: str, **options: object) -> Case:
    target = f"benchmarks.curves.space:{function}"
    return Case(name=name, target=target, options=options, is_fresh=True)


def curve_groups(scale: Scale) -> Iterator[Group]:
    """Yield all groups of `make bench-curves`."""
    for curve in curves(scale):
        yield curve.group(scale)
    yield from memory_groups(scale)
