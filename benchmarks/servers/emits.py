"""What writing an event costs: alone, in the user's transaction, and among many."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from django.db import connection, transaction

from benchmarks.servers.running import new_site
from benchmarks.sink import BODY, NS, TYPE, now
from django_gomq import Event, emit, emit_many

BULK = 500  # events of one call

Metrics = Mapping[str, float]
Write = Callable[[int], object]


class OrderSettled(Event, type=TYPE):
    """The event of these cases, beside ``sink.DATA``."""

    order_id: int
    status: str
    total: str


def made() -> OrderSettled:
    """Return one, made as users make them."""
    return OrderSettled(order_id=12345, status="paid", total="99.90")


def measure(
    one: Callable[[], object],
    many: Write | None,
    count: int,
    *,
    joins_transactions: bool = True,
    clear: Callable[[], object],
) -> Metrics:
    """Return seconds for each event: ``own``, ``joined`` and ``bulk``."""
    times = {"own": _each(one, count)}
    if joins_transactions:
        with transaction.atomic():
            times["joined"] = _each(one, count)
    if many is not None:
        calls = max(count // 100, 1)
        began = now()
        for _ in range(calls):
            many(BULK)
        times["bulk"] = (now() - began) * NS / (BULK * calls)
    clear()
    return times


def _each(call: Callable[[], object], count: int) -> float:
    began = now()
    for _ in range(count):
        call()
    return (now() - began) * NS / count


def execute(statement: str) -> None:
    """Run a statement on Django's connection."""
    with connection.cursor() as cursor:
        cursor.execute(statement)


def raw(vendor: str, count: int) -> Callable[[], Metrics]:
    """Insert rows of the same width with Django's cursor, and nothing else."""
    new_site(vendor, is_migrated=False)
    key = {
        "postgresql": "bigserial PRIMARY KEY",
        "mariadb": "bigint AUTO_INCREMENT PRIMARY KEY",
        "sqlite": "integer PRIMARY KEY",
    }[vendor]
    execute(
        f"CREATE TABLE bench_raw (id {key}, type varchar(200) NOT NULL, "
        "made double precision NOT NULL, body text NOT NULL)"
    )
    statement = "INSERT INTO bench_raw (type, made, body) VALUES (%s, %s, %s)"
    values = (TYPE, 1.8e9, BODY.decode() + " " * 250)  # as wide as an envelope

    def one() -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)

    def many(size: int) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.executemany(statement, [values] * size)

    return lambda: measure(
        one, many, count, clear=lambda: execute("DELETE FROM bench_raw")
    )


def ours(vendor: str, count: int) -> Callable[[], Metrics]:
    """Emit typed events by the default broker."""
    new_site(vendor, "django_gomq")
    return lambda: measure(
        lambda: emit(made()),
        lambda size: emit_many([made() for _ in range(size)]),
        count,
        clear=lambda: execute("DELETE FROM gomq_outbox"),
    )
