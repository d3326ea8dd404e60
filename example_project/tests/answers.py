"""Asks Prometheus."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import urlencode

from acceptance.scrape import get

RATE_INTERVAL = "10s"
RANGE = "60s"
NOT_IN_A_DATABASE = ("gomq_server_trimmed", "gomq_relay_up", "gomq_outbox_refused")
"""Metrics of a Redis, and of an outbox before one: tests/backends asks for these."""
_CHOICES = ("job", "instance", "broker", "event", "consumer")

Query = TypeVar("Query")
Answer = TypeVar("Answer")


class Answers:
    """The HTTP interface of one Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Return the series of now, with their values."""
        found = self._get("query", query=fill(expr))["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def numbers(self, expr: str) -> list[float]:
        """Return the values of now that are numbers."""
        return [value for _, value in self.ask(expr) if not math.isnan(value)]

    def values(self, label: str, series: str) -> list[str]:
        """Return what Grafana offers for a variable."""
        found: list[str] = self._get(f"label/{label}/values", **{"match[]": series})
        return found

    def exemplars(self, expr: str) -> list[dict[str, str]]:
        """Return the labels of the exemplars that belong to a query."""
        found = self._get("query_exemplars", query=fill(expr), start="0", end="9e9")
        return [one["labels"] for series in found for one in series["exemplars"]]

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule with its state."""
        groups = self._get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _get(self, path: str, **asked: str) -> Any:
        body = get(self._url, f"/api/v1/{path}?{urlencode(asked)}")
        return json.loads(body)["data"]


def is_for_a_database(expr: str) -> bool:
    """Whether a clinic on a database can answer it."""
    return not any(name in expr for name in NOT_IN_A_DATABASE)


def fill(expr: str) -> str:
    """Put what Grafana would put in for its variables, with everything chosen."""
    for name in _CHOICES:
        expr = expr.replace(f"${name}", ".+")
    expr = expr.replace("$__rate_interval", RATE_INTERVAL)
    return expr.replace("$__range", RANGE)


def wait_for(seconds: float, condition: Callable[[], object], what: str) -> None:
    """Poll until the condition holds, or fail."""
    deadline = time.monotonic() + seconds
    never = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        never.wait(0.05)


def ask_until(
    seconds: float, asked: Iterable[Query], ask: Callable[[Query], Answer]
) -> dict[Query, Answer]:
    """Ask again those that have no answer so far; return the last answer of each.

    A scrape that fails makes the series stale until the next one, and a rate has an
    answer after two scrapes.
    """
    answers = {query: ask(query) for query in asked}

    def are_all_there() -> bool:
        missing = [query for query, found in answers.items() if not found]
        answers.update((query, ask(query)) for query in missing)
        return all(answers.values())

    with contextlib.suppress(AssertionError):  # the test names those that have none
        wait_for(seconds, are_all_there, "answers")
    return answers
