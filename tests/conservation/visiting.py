"""Sends requests from several threads, and counts what they were answered."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

from tests.django_site.waiting import SECONDS

VISITORS = 8
_ALONE = {"Connection": "close"}


def visit(port: int, requests: int) -> Counter[str]:
    """Have that many entries made; return how many had which answer."""
    numbers = itertools.count(1)  # next() is one step for all threads
    with ThreadPoolExecutor(VISITORS) as pool:
        visits = [
            pool.submit(_visit, port, lambda: next(numbers), requests)
            for _ in range(VISITORS)
        ]
        return sum((one.result() for one in visits), Counter())


def _visit(port: int, next_number: Callable[[], int], last: int) -> Counter[str]:
    answers: Counter[str] = Counter()
    while (number := next_number()) <= last:
        # A connection for each: one that a recycled worker closes beneath a request
        # leaves it open whether that was answered.
        connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        connection.request("GET", f"/enter?number={number}", headers=_ALONE)
        response = connection.getresponse()
        answers[f"{response.status} {response.read().decode()}"] += 1
        connection.close()
    return answers
