"""The groups behind the goals, and which case is in which; it runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.plan import Case, Group, Scale

CONSUMERS = (1, 5, 50)
PUBLISH = "one publish()"
PACED = "one emit() a millisecond"
COMMIT = "events of one transaction"
TRACED = "trace ids"
BUFFER = "the buffer alone"
IDLE = "idle"
START = "start-up"

SIGNAL = "Signal.send_robust()"
SIGNAL_FLOW = "Signal.send_robust(), bare"
EMIT = "emit(), event made before"
EMIT_MAKING = "emit(), event made in the call"
EMIT_UNTYPED = "emit() of a name and a dict"
DIRECT_PORT = "direct port: queue.Queue, prometheus_client"
REQUEST = "a bare Django request"
BY_PUBLISH = "django-gomq: publish()"
BY_EMIT = "django-gomq: emit()"
BY_EMIT_READ = "django-gomq: emit(), data read"
BY_EMIT_MANY = "django-gomq: emit_many() of 500"
BY_DICT = "django-gomq: emit() of a dict, data read"
WAKE = "a thread that sleeps at a lock"
TRACED_OFF = "off"
TRACED_ON = "on"
BUFFERED = "django-gomq's"
SAVEPOINTS = "10,000, with 100 savepoints rolled back"
CHECK = "manage.py check of a new project"
CHECK_WITH = "the same, with django_gomq"
IMPORT = "import django_gomq"
IDLE_30 = "30 consumers"
COUNTS = (1_000, 10_000, 100_000)


def flow(consumers: int) -> str:
    """Return the name of the group that runs flat out."""
    return f"flat out, {consumers} consumer{'s' * (consumers > 1)}"


def to(consumers: int) -> str:
    """Return what a case with so many consumers is called by."""
    return f"{consumers} consumer{'s' * (consumers > 1)}"


def publish_to(consumers: int) -> str:
    """Return what a case of single publishes is called by."""
    return f"publish(), {to(consumers)}"


def events(count: int) -> str:
    """Return what a case of one commit is called by."""
    return f"{count:,}"


def goal_groups(scale: Scale) -> Iterator[Group]:
    """Yield all groups of `make bench`."""
    yield from own_groups(scale)
    for consumers in (1, 5):
        yield _flow_group(scale, consumers, with_peers=True)
    yield _idle_group(scale)
    yield _start_group(scale)


def python_groups(scale: Scale) -> Iterator[Group]:
    """Yield the groups that compare interpreters: no start-up, no peer flat out."""
    yield from own_groups(scale)
    for consumers in (1, 5):
        yield _flow_group(scale, consumers, with_peers=False)


def own_groups(scale: Scale) -> Iterator[Group]:
    """Yield the groups of short runs in one process."""
    yield _publish_group(scale)
    yield _paced_group(scale)
    yield _commit_group(scale)
    yield _traced_group(scale)
    yield _buffer_group(scale)


def _publish_group(scale: Scale) -> Group:
    bursts: dict[str, Any] = {"bursts": scale.of(15)}
    publish = [
        _case(publish_to(count), "cases.bursts:publish", consumers=count, **bursts)
        for count in CONSUMERS
    ]
    return Group(
        name=PUBLISH,
        runs=scale.runs + 3,
        cases=[
            _case(SIGNAL, "cases.bursts:send_robust", **bursts),
            *publish,
            _case(EMIT, "cases.bursts:emit_typed", **bursts),
            _case(EMIT_MAKING, "cases.bursts:make_and_emit_typed", **bursts),
            _case(EMIT_UNTYPED, "cases.bursts:emit_untyped", **bursts),
            _peer(DIRECT_PORT, "direct_port:bursts", count=scale.of(10)),
            _peer(REQUEST, "request:bare", requests=scale.of(300)),
        ],
    )


def _paced_group(scale: Scale) -> Group:
    cases = [
        _case(to(count), "cases.paced:emit_paced", consumers=count, emits=scale.of(500))
        for count in CONSUMERS
    ]
    references = [
        _case(SIGNAL, "cases.paced:send_robust", emits=scale.of(500)),
        _case(WAKE, "cases.paced:wake", emits=scale.of(500)),
    ]
    return Group(name=PACED, runs=scale.runs, cases=[*cases, *references])


def _commit_group(scale: Scale) -> Group:
    cases = [
        _case(
            events(count), "cases.commit:commit", events=count,
            repeats=max(20_000 // count, 1),
        )
        for count in COUNTS
    ]  # fmt: skip
    rolled_back = _case(SAVEPOINTS, "cases.commit:roll_back_savepoints", events=10_000)
    return Group(name=COMMIT, runs=scale.runs, cases=[*cases, rolled_back])


def _traced_group(scale: Scale) -> Group:
    size: dict[str, Any] = {"messages": scale.of(20_000), "bursts": scale.of(10)}
    cases = [
        _case(name, "cases.traced:emit_traced", is_on=is_on, **size)
        for name, is_on in ((TRACED_OFF, False), (TRACED_ON, True))
    ]
    return Group(name=TRACED, runs=scale.runs, cases=cases)


def _buffer_group(scale: Scale) -> Group:
    size: dict[str, Any] = {"items": scale.of(200_000), "bursts": scale.of(40)}
    standard = [
        _case(f"queue.{kind}", "cases.buffer:standard", kind=kind, **size)
        for kind in ("Queue", "PriorityQueue", "SimpleQueue")
    ]
    ours = _case(BUFFERED, "cases.buffer:ours", **size)
    return Group(name=BUFFER, runs=scale.runs, cases=[ours, *standard])


def _flow_group(scale: Scale, consumers: int, *, with_peers: bool) -> Group:
    messages = scale.of(200_000 if consumers == 1 else 60_000)
    ours = [
        _case(
            name, "cases.flow:flat_out", how=how, reads=reads, consumers=consumers,
            messages=messages if name == BY_PUBLISH else messages // 2,
        )
        for name, how, reads in _FLOWS
    ]  # fmt: skip
    peers = list(_peers(scale, consumers)) if with_peers else []
    signal = _case(
        SIGNAL_FLOW, "cases.flow:send_robust", consumers=consumers, messages=messages
    )
    cases = [signal, *ours, *peers]
    return Group(name=flow(consumers), runs=scale.runs, cases=cases, warm_ups=0)


_FLOWS = (
    (BY_PUBLISH, "publish", False),
    (BY_EMIT, "emit", False),
    (BY_EMIT_READ, "emit", True),
    (BY_EMIT_MANY, "emit_many", False),
)
# As many events as take each of them about half a second.
_PEERS: Mapping[str, tuple[str, int, Mapping[str, object]]] = {
    BY_DICT: ("gomq:untyped", 50_000, {}),
    SIGNAL: ("signal:send_robust", 50_000, {}),
    "blinker": ("blinker:send", 50_000, {}),
    "pyee, in the caller": ("pyee:in_caller", 50_000, {}),
    "pyee, on the loop": ("pyee:on_loop", 20_000, {}),
    "pyee, thread pool": ("pyee:in_pool", 10_000, {}),
    DIRECT_PORT: ("direct_port:flat_out", 20_000, {}),
    "Huey, memory": ("huey:memory", 5_000, {}),
    "Dramatiq, stub": ("dramatiq:stub", 4_000, {}),
    "django-tasks, immediate": ("django_tasks:immediate", 4_000, {}),
    "FastStream, test broker": ("faststream:in_memory", 1_500, {}),
    "bubus, serial": ("bubus:dispatch", 500, {"parallel": False}),
    "bubus, parallel": ("bubus:dispatch", 500, {"parallel": True}),
    "Celery, memory": ("celery:memory", 500, {}),
    "Celery, memory, polls each 5 ms": ("celery:memory", 1_000, {"polling": 0.005}),
}
_SLOW = 2_000  # events; who takes fewer is asked for fewer samples of latency


def _peers(scale: Scale, consumers: int) -> Iterator[Case]:
    for name, (target, count, options) in _PEERS.items():
        yield _peer(
            name, target, consumers=consumers, events=scale.of(count // consumers),
            paced=scale.of(100 if count > _SLOW else 50), **options,
        )  # fmt: skip


def _idle_group(scale: Scale) -> Group:
    # Five windows of two seconds are the ten seconds of the goal, with a spread.
    case = _case(IDLE_30, "cases.idle:idle", consumers=30, seconds=2.0)
    return Group(name=IDLE, runs=scale.runs, cases=[case], warm_ups=0)


def _start_group(scale: Scale) -> Group:
    cases = [
        _case(CHECK, "cases.start:check", is_fresh=True, apps=[]),
        _case(CHECK_WITH, "cases.start:check", is_fresh=True, apps=["django_gomq"]),
        _case(IMPORT, "cases.start:import_all", is_fresh=True),
    ]
    # The difference of two processes is noisier than either.
    return Group(name=START, runs=3 * scale.runs, cases=cases, warm_ups=0)


def _case(name: str, target: str, *, is_fresh: bool = False, **options: Any) -> Case:
    return Case(
        name=name, target=f"benchmarks.{target}", options=options, is_fresh=is_fresh
    )


def _peer(name: str, target: str, **options: Any) -> Case:
    return Case(
        name=name,
        target=f"benchmarks.peers.{target}",
        options=options,
        is_ours=name == BY_DICT,
    )
