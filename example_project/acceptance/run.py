"""One demonstration from start to verdict: server, traffic, quiet, table, checks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from acceptance import rows, table
from acceptance.check import Check
from acceptance.law import check_law, standing, undelivered
from acceptance.scrape import Scrape, fetch
from acceptance.server import Login, Server
from acceptance.sources import check_answers, check_rows
from acceptance.visitors import others
from clinic.simulation.client import AGENT
from clinic.simulation.interrupt import Interrupt
from clinic.simulation.simulation import Simulation
from clinic.simulation.tally import Counts

TICK = 1.0
QUIET_TIMEOUT = 10.0
FIRST_SERVER_ERROR = 500
_KEPT: Final = {
    "database": "patient.* is kept in the database",
    "redis": "patient.* and health.* are kept in Redis",
}


def demonstrate(
    server: Server,
    interrupt: Interrupt,
    *,
    seconds: float,
    rate: float,
    workers: int,
) -> bool:
    """Drive traffic, wait until the bus is quiet, compare the sources, and say it."""
    _say(addresses(server.url, server.add_user()))
    if server.backend in _KEPT:
        setting = f"CLINIC_BACKEND={server.backend}"
        _say(f"{_KEPT[server.backend]}, for a worker ({setting})")
    simulation = Simulation(
        server.url, seconds=seconds, rate=rate, workers=workers, switch=True
    )
    with simulation as run:
        _watch(server, run, interrupt)
        _say("\nthe traffic stops; Ctrl-C gives up")
        counts = run.finish()
    quiet, scrape = wait_until_quiet(server)
    return quiet & _verdict(server, counts, scrape)


def wait_until_quiet(
    server: Server, seconds: float = QUIET_TIMEOUT
) -> tuple[bool, Scrape]:
    """Scrape until no message is on its way, for so many seconds at most."""
    deadline = time.monotonic() + seconds
    scrape = fetch(*server.processes)
    while (still := _left(scrape, server)) and time.monotonic() < deadline:
        time.sleep(0.2)
        scrape = fetch(*server.processes)
    if still:
        _say(f"NOT QUIET after {seconds:.0f} s: {still:.0f} messages on their way")
    return not still, scrape


def _left(scrape: Scrape, server: Server) -> float:
    return standing(scrape) + undelivered(scrape, rows.replayed(server.database))


def progress(elapsed: float, mode: str, counts: Counts, scrape: Scrape) -> str:
    """Say in one line how the run is going."""
    answered = sum(counts.statuses.values())
    published = scrape.total("gomq_messages_published_total")
    handled = scrape.total("gomq_messages_processed_total", outcome="success")
    waiting = f"{standing(scrape):.0f} on their way"
    parts = [
        f"{elapsed:5.0f} s  laboratory {mode:6}",
        f"{answered} of {counts.requests} requests answered",
        f"{published:.0f} published, {handled:.0f} handled, {waiting}",
        *_losses("dropped", scrape.by("consumer", "gomq_messages_dropped_total")),
        *_losses(
            "gave up on", scrape.by("consumer", "gomq_messages_dead_lettered_total")
        ),
    ]
    return " | ".join(parts)


def _losses(what: str, by_consumer: Mapping[str, float]) -> list[str]:
    """Say who lost how many, and nothing where nobody did."""
    return [
        f"{consumer} {what} {count:.0f}"
        for consumer, count in by_consumer.items()
        if count
    ]


def check_visits(counts: Counts, saved: int, saved_by_others: int) -> list[Check]:
    """Compare the requests with their answers, and the records with their rows."""
    wrong = sum(n for code, n in counts.statuses.items() if code >= FIRST_SERVER_ERROR)
    told = counts.records + saved_by_others
    return [
        Check("requests", "without an answer", counts.unanswered, "allowed", 0),
        Check("requests", "answered with an error", wrong, "allowed", 0),
        Check("records", "answers", told, "rows", saved),
    ]


def _watch(server: Server, run: Simulation, interrupt: Interrupt) -> None:
    while not (run.over or interrupt.asked):
        counts = run.step()
        _say(progress(run.elapsed, run.mode, counts, fetch(*server.processes)))
        interrupt.wait(TICK)


def _verdict(server: Server, counts: Counts, scrape: Scrape) -> bool:
    with server.access_log.open(errors="replace") as lines:
        visitors = others(lines, AGENT)
    saved_by_others = sum(
        visitors["health.record.saved", state] for state in ("accepted", "refused")
    )
    saved = rows.saved_records(server.database)
    found = {
        "HTTP": check_visits(counts, saved, saved_by_others),
        "HTTP answers = /gomq/metrics": check_answers(counts.events + visitors, scrape),
        "rows = /gomq/metrics": check_rows(rows.written(server.database), scrape),
        "the law, in /gomq/metrics": check_law(scrape, rows.replayed(server.database)),
    }
    _say(_summary(counts, sum(visitors.values()), scrape))
    for title, made in found.items():
        _say(table.checks(title, made))
    return _all_hold(check for made in found.values() for check in made)


def _all_hold(found: Iterable[Check]) -> bool:
    failed = [check for check in found if not check.holds]
    _say(f"\n{len(failed)} DISAGREE" if failed else "\nall sources agree")
    return not failed


def _summary(counts: Counts, visitors: int, scrape: Scrape) -> str:
    visits = f"{counts.requests} requests; {visitors} events of other visitors"
    note = "(p50, p95, p99 are estimates from histogram buckets)"
    return "\n".join(["", table.consumer_table(scrape), note, "", visits])


def addresses(url: str, login: Login) -> str:
    """Say where to look, and as whom."""
    lines = {
        "site": f"{url}/",
        "switches": f"{url}/switches/",
        "dead letters": f"{url}/dead-letters/",
        "bus": f"{url}/gomq/",
        "live page": f"{url}/gomq/live/",
        "in the admin": f"{url}/admin/gomq/consumer/",
        "log in as": f"{login.name}, password {login.password} (of this demo alone)",
    }
    return "\n".join(f"{name:>12}  {text}" for name, text in lines.items())


def _say(text: str) -> None:
    print(text, flush=True)
