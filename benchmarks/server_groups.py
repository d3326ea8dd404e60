"""The groups and goals of `make bench-servers`; it runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.figures import Derived, Measure, ratio
from benchmarks.plan import Case, Group, Scale
from benchmarks.targets import Goal

OURS = "django-gomq"
RAW = "the raw insert"
PGQUEUER = "pgqueuer"
PROCRASTINATE = "procrastinate"
DJANGO_TASKS = "django-tasks-db"

EMITS: Mapping[str, str] = {
    "postgresql": "PostgreSQL, writing an event",
    "mariadb": "MariaDB, writing an event",
    "sqlite": "SQLite, writing an event",
}
HANDLED = "PostgreSQL, handled"
HISTORY = "PostgreSQL, rows of history"
OTHERS = "SQLite and MariaDB, handled"
REDIS = "Redis"
FANNED = "Redis, streams and consumers"
SHAPES = ((1, 1), (10, 1), (100, 1), (1, 5), (10, 5))  # streams, consumers
REDIS_PY = "redis-py alone"
WRITING = f"{OURS}, the handler writes a file"
TASK_QUEUES = {"taskiq": 2_000, "Huey": 2_000, "Dramatiq": 2_000, "Celery": 700,
               "streaq": 700, "RQ": 200}  # fmt: skip
"""How many tasks each is given, so that none takes long."""
BETWEEN = "PostgreSQL, from one process to another"
SIZES = (1_000, 100_000, 1_000_000, 5_000_000)
SNAPSHOT = "100,000, and a snapshot held open"
UNKEPT = ", outcomes not kept"


def to(consumers: int) -> str:
    """Return what a case of ours with so many consumers is called by."""
    return f"{OURS}, {consumers} consumer{'s' * (consumers > 1)}"


def server_groups(scale: Scale) -> Iterator[Group]:
    """Yield all groups of `make bench-servers`."""
    for vendor in EMITS:
        yield _emit_group(vendor, scale)
    yield _handled_group(scale)
    yield _others_group(scale)
    yield _history_group(scale)
    yield _redis_group(scale)
    yield _between_group(scale)
    yield _fanned_group(scale)


def _emit_group(vendor: str, scale: Scale) -> Group:
    count = scale.of(1_000)
    cases = [
        _ours(RAW, "emits:raw", vendor=vendor, count=count),
        _ours(OURS, "emits:ours", vendor=vendor, count=count),
    ]
    if vendor == "postgresql":
        cases += [
            _peer(PGQUEUER, "pgqueuer_emits", count=count),
            _peer(PROCRASTINATE, "procrastinate_emits", count=scale.of(500)),
            _peer(DJANGO_TASKS, "django_tasks_emits", count=scale.of(500)),
        ]
    return Group(name=EMITS[vendor], runs=scale.runs, cases=cases)


def _handled_group(scale: Scale) -> Group:
    paced = scale.of(100)
    ours = [
        _ours(
            to(consumers), "handled:ours", vendor="postgresql", consumers=consumers,
            messages=scale.of(20_000 // consumers), paced=paced,
        )
        for consumers in (1, 5, 20)
    ]  # fmt: skip
    ours.append(
        _ours(
            to(1) + UNKEPT, "handled:ours", vendor="postgresql", consumers=1,
            messages=scale.of(20_000), paced=paced, outcomes=False,
        )
    )  # fmt: skip
    peers = [
        _peer(PGQUEUER, "pgqueuer_handled", messages=scale.of(5_000), paced=paced),
        _peer(
            PROCRASTINATE, "procrastinate_handled", messages=scale.of(500), paced=paced
        ),
        _peer(DJANGO_TASKS, "django_tasks_handled", messages=scale.of(300)),
    ]
    return Group(name=HANDLED, runs=scale.runs, cases=[*ours, *peers])


def _others_group(scale: Scale) -> Group:
    cases = [
        _ours(
            name + UNKEPT * (not outcomes), "handled:ours", vendor=vendor, consumers=1,
            messages=scale.of(20_000), paced=scale.of(100), outcomes=outcomes,
        )
        for name, vendor in (("SQLite", "sqlite"), ("MariaDB", "mariadb"))
        for outcomes in (True, False)
    ]  # fmt: skip
    return Group(name=OTHERS, runs=scale.runs, cases=cases)


def _history_group(scale: Scale) -> Group:
    size: dict[str, Any] = {
        "vendor": "postgresql", "consumers": 1, "messages": scale.of(20_000),
    }  # fmt: skip
    cases = [
        _ours(f"{rows:,}", "handled:ours", history=scale.of(rows), **size)
        for rows in SIZES
    ]
    held = _ours(
        SNAPSHOT, "handled:ours", history=scale.of(100_000), holds_snapshot=True, **size
    )
    return Group(name=HISTORY, runs=scale.runs, cases=[*cases, held])


def _redis_group(scale: Scale) -> Group:
    size = {"count": scale.of(2_000), "paced": scale.of(100)}
    cases = [
        _ours(REDIS_PY, "on_redis:raw", **size),
        _ours(OURS, "on_redis:ours", **size),
        _ours(WRITING, "on_redis:ours", writes=True, **size),
    ]
    cases += [
        Case(
            name=name,
            target="benchmarks.servers.on_redis:peer",
            options={"name": name, "count": scale.of(count), "paced": scale.of(40)},
            is_ours=False,
        )
        for name, count in TASK_QUEUES.items()
    ]
    return Group(name=REDIS, runs=scale.runs, cases=cases)


def _between_group(scale: Scale) -> Group:
    cases = [
        _ours(
            name, "between:ours", vendor="postgresql", notify=notify,
            paced=scale.of(paced),
        )
        for name, notify, paced in (
            ('OPTIONS["notify"]', True, 50), ("looking alone", False, 20),
        )
    ]  # fmt: skip
    return Group(name=BETWEEN, runs=scale.runs, cases=cases)


def _fanned_group(scale: Scale) -> Group:
    cases = [
        _ours(
            f"{types} streams, {consumers} consumers", "on_redis:fanned", types=types,
            consumers=consumers, messages=scale.of(10_000 // consumers),
        )
        for types, consumers in SHAPES
    ]  # fmt: skip
    return Group(name=FANNED, runs=scale.runs, cases=cases)


def _ours(name: str, target: str, **options: Any) -> Case:
    return Case(name=name, target=f"benchmarks.servers.{target}", options=options)


def _peer(name: str, target: str, **options: Any) -> Case:
    return Case(
        name=name,
        target=f"benchmarks.servers.peers:{target}",
        options=options,
        is_ours=False,
    )


def server_goals() -> Iterator[Goal]:
    """Yield the goals that are measured on servers, in their order."""
    yield from _emit_goals()
    yield from _handled_goals()
    group = EMITS["postgresql"]
    bulk = Measure(group, OURS, "bulk")
    yield Goal("G9", "500 events of one call, each", bulk, 20e-6, "s")
    beside = ratio(bulk, Measure(group, PGQUEUER, "bulk"))
    yield Goal("G9", f"... beside {PGQUEUER}", beside, 0.65, "x")
    delay = Measure(HANDLED, to(1), "p50")
    yield Goal("G9", "emit to handler in one process, p50", delay, 1e-3, "s")
    beside = ratio(delay, Measure(HANDLED, PGQUEUER, "p50"))
    yield Goal("G9", f"... beside {PGQUEUER}", beside, 1 / 3.5, "x")
    small = Measure(OTHERS, "SQLite", "handled")
    yield Goal("G10", "SQLite, handled", small, 50e3, "/s", is_least=True)
    yield from _redis_goals()


def _emit_goals() -> Iterator[Goal]:
    group = EMITS["postgresql"]
    for metric, what, limit in (
        ("own", "one emit in its own transaction", 1.25),
        ("joined", "one emit in the user's transaction", 1.5),
    ):
        source = ratio(Measure(group, OURS, metric), Measure(group, RAW, metric))
        yield Goal("G7", f"{what}, beside {RAW}", source, limit, "x")
    for peer, limit in ((PGQUEUER, 0.8), (DJANGO_TASKS, 0.55), (PROCRASTINATE, 0.4)):
        source = ratio(Measure(group, OURS, "own"), Measure(group, peer, "own"))
        yield Goal("G7", f"... beside {peer}", source, limit, "x")


def _handled_goals() -> Iterator[Goal]:
    ours = Measure(HANDLED, to(1), "handled")
    yield Goal("G8", "handled, one process", ours, 15e3, "/s", is_least=True)
    for peer, times in ((PGQUEUER, 2.0), (PROCRASTINATE, 19.0), (DJANGO_TASKS, 33.0)):
        beside = ratio(ours, Measure(HANDLED, peer, "handled"))
        yield Goal("G8", f"... beside {peer}", beside, times, "x", is_least=True)


def _redis_goals() -> Iterator[Goal]:
    def beside(metric: str, peer: str, case: str = OURS) -> Derived:
        return ratio(Measure(REDIS, case, metric), Measure(REDIS, peer, metric))

    own = beside("own", REDIS_PY)
    yield Goal("G11", "one emit, beside redis-py's own XADD", own, 0.7, "x")
    for peer, limit in (("Dramatiq", 0.8), ("Celery", 0.3)):
        yield Goal("G11", f"... beside {peer}", beside("own", peer), limit, "x")
    bulk = Measure(REDIS, OURS, "bulk")
    yield Goal("G11", "500 events of one call, each", bulk, 15e-6, "s")
    for case, least in ((OURS, 40e3), (WRITING, 20e3)):
        handled = Measure(REDIS, case, "handled")
        what = "handled, one process" if case == OURS else "... the handler writes"
        yield Goal("G12", what, handled, least, "/s", is_least=True)
    for peer, times in (("taskiq", 20), ("Huey", 18), ("Dramatiq", 15), ("Celery", 40)):
        source = beside("handled", peer, WRITING)
        yield Goal("G12", f"... beside {peer}", source, times, "x", is_least=True)
    delay = beside("p50", REDIS_PY)
    yield Goal("G12", "emit to handler, p50, beside a raw reader", delay, 1.4, "x")
