"""The part of the page that `make bench-servers` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import server_groups as groups
from benchmarks.figures import GroupResults, Measure, ratio
from benchmarks.report.goals import draw_goals
from benchmarks.report.sections import columns_of
from benchmarks.report.tables import Column, draw_cases

WORDS = """\
The servers are private ones on the same machine, without fsync: what is measured is the
code and its trips to the server, and no disk."""
EMIT_WORDS = """\
*Own* is one event in a transaction of its own, *joined* one inside `atomic()` of the
user, *bulk* one of 500 that are written in one call, its transaction included. A dash:
it does not join the transaction of Django's connection, or has no call for many."""
HANDLED_WORDS = """\
Of messages that wait, from the first to the last one handled in one process, each by
every consumer; then one at a time, from before the emit to the handler, in the process
that emits. Nothing may be missing, or left in the tables."""
REDIS_WORDS = """\
*Own* is one event, waited for; *bulk* one of 500 of one call, and a pipeline of as many
entries of the same width by redis-py alone. A dash: it has no call for many, or none
that is usual. Then what waits is worked off by one worker: ours reads, handles and
acknowledges each, in the process that emits; redis-py reads and acknowledges 100 at a
time in a loop, and does nothing with them; task queues have a worker process of their
own, as they ship it, which stands still while they enqueue, and their task writes when
it ran to a file. p50 is of one at a time, from before the emit to the handler."""
BETWEEN_WORDS = """\
One at a time, at most 16 a second, from before the emit in one process to the handler
in another, whose worker looks less and less often where it finds nothing."""
COST_WORDS = """\
What an event takes of a processor, which depends less on what else the machine does:
*here* in the process that emits and handles, *server* in the thread of Redis that runs
commands; and the bytes of memory that it takes there while it waits."""
FANNED_WORDS = """\
What waits in so many streams is handled in one process by so many consumers, each of
which gets every event. *Handled* counts events, the processors' time each delivery."""
HISTORY_WORDS = """\
One consumer, and so many events that were handled before and are kept. The snapshot is
a REPEATABLE READ transaction that another connection holds from before the first
message until after the last."""


def write_servers(results: GroupResults, images: Path) -> str:
    """Return the section in Markdown; it has no plot."""
    return "\n\n".join(["## Servers", WORDS, *_parts(results)])


def _parts(results: GroupResults) -> Iterator[str]:
    goals = [one for one in groups.server_goals() if one.source.group in results]
    if goals:
        yield draw_goals(results, goals)
    emits = [group for group in groups.EMITS.values() if group in results]
    if emits:
        yield f"### Writing an event\n\n{EMIT_WORDS}"
    yield from (_emits(group, results) for group in emits)
    yield from _redis_parts(results)
    for group, title, words in (
        (groups.HANDLED, "### Handling on PostgreSQL", HANDLED_WORDS),
        (groups.OTHERS, "### Handling on SQLite and MariaDB", ""),
        (groups.BETWEEN, "### From one process to another", BETWEEN_WORDS),
        (groups.HISTORY, "### Rows of history on PostgreSQL", HISTORY_WORDS),
    ):
        if group in results:
            wanted = []
            if group != groups.BETWEEN:
                wanted += [("handled", "handled", "/s")]
            if group != groups.HISTORY:
                wanted += [("p50", "p50", "s"), ("p99", "p99", "s")]
            table = draw_cases(
                "what", list(results[group]), columns_of(group, wanted), results
            )
            yield "\n\n".join(filter(None, [title, words, table]))


def _redis_parts(results: GroupResults) -> Iterator[str]:
    if groups.REDIS in results:
        yield f"### Redis\n\n{REDIS_WORDS}\n\n{_redis(results)}"
    if groups.FANNED in results:
        title = "### Streams and consumers on Redis"
        yield f"{title}\n\n{FANNED_WORDS}\n\n{_fanned(results)}"


def _emits(group: str, results: GroupResults) -> str:
    columns = _written(group, groups.RAW, ("own", "joined", "bulk"))
    return draw_cases(group, list(results[group]), columns, results)


def _written(group: str, raw: str, metrics: Sequence[str]) -> list[Column]:
    """Return what each metric is, and how many times what it is without any of us."""

    def beside(metric: str) -> Column:
        floor = Measure(group, raw, metric)
        return Column(
            "x raw", lambda case: ratio(Measure(group, case, metric), floor), "x"
        )

    return [
        column
        for metric in metrics
        for column in (*columns_of(group, [(metric, metric, "s")]), beside(metric))
    ]


def _redis(results: GroupResults) -> str:
    group = groups.REDIS
    columns = _written(group, groups.REDIS_PY, ("own", "bulk"))
    read = [("handled", "handled", "/s"), ("p50", "p50", "s"), ("p99", "p99", "s")]
    columns += columns_of(group, read)
    table = draw_cases("what", list(results[group]), columns, results)
    steps = (("own", "own"), ("bulk", "bulk"), ("each", "handled"))
    spent = [
        (f"{word}, {where}", f"{step}_{where}", "s")
        for step, word in steps
        for where in ("here", "server")
    ]
    spent += [("waiting", "kept", "B")]
    cases = [groups.REDIS_PY, groups.OURS, groups.WRITING]
    costs = draw_cases("what", cases, columns_of(group, spent), results)
    return f"{table}\n\n{COST_WORDS}\n\n{costs}"


def _fanned(results: GroupResults) -> str:
    wanted = [("handled", "handled", "/s")]
    wanted += [(f"each, {where}", f"each_{where}", "s") for where in ("here", "server")]
    group = groups.FANNED
    columns = columns_of(group, wanted)
    return draw_cases("what", list(results[group]), columns, results)
