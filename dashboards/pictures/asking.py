"""Asks Prometheus what the panels of a board ask, as Grafana would."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

SCRAPE_INTERVAL: Final = 15
"""Seconds: what Grafana takes a Prometheus to have that says nothing."""
_TIMEOUT: Final = 60
_MARK_STEP: Final = 60
"""Seconds between two points of an annotation."""
# What Grafana rounds the step of a range to: up to the first number, to the second.
_STEPS: Final = (
    *((1.5, 1), (3.5, 2), (7.5, 5), (12.5, 10), (17.5, 15), (25, 20), (45, 30)),
    *((90, 60), (210, 120), (450, 300), (750, 600), (1050, 900), (1500, 1200)),
    *((2700, 1800), (5400, 3600)),
)
_LABEL: Final = re.compile(r"\{\{\s*(.+?)\s*\}\}")


class AskingError(Exception):
    """Prometheus did not answer; the text says what was asked, and what it said."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time range of a board, in whole seconds of the epoch."""

    start: int
    end: int

    @property
    def seconds(self) -> int:
        """How long it is."""
        return self.end - self.start


def step(span: Span, points: int, scrape_interval: float = SCRAPE_INTERVAL) -> float:
    """Return the seconds between two points of a line on so many pixels."""
    exact = span.seconds / points
    rounded = next((to for below, to in _STEPS if exact < below), 7200)
    return max(rounded, scrape_interval)


def filled(
    expr: str,
    chosen: Mapping[str, str],
    span: Span,
    step: float,
    scrape_interval: float = SCRAPE_INTERVAL,
) -> str:
    """Return the query with its variables replaced: the chosen ones, and Grafana's."""
    # Four scrapes at least, so that a rate outlives one that failed.
    window = max(step + scrape_interval, 4 * scrape_interval)
    known = {
        **chosen,
        "__rate_interval": f"{window:g}s",
        "__interval": f"{step:g}s",
        "__range": f"{span.seconds}s",
        "__range_s": str(span.seconds),
    }
    return re.sub(r"\$\{?(\w+)\}?", lambda found: known.get(found[1], found[0]), expr)


def legend(pattern: str, labels: Mapping[str, str]) -> str:
    """Return the name of a series, by the legend of its query."""
    if pattern and pattern != "__auto":
        return _LABEL.sub(lambda found: labels.get(found[1], ""), pattern)
    shown = ", ".join(
        f'{name}="{value}"' for name, value in labels.items() if name != "__name__"
    )
    return f"{labels.get('__name__', '')}{{{shown}}}"


class Prometheus:
    """The HTTP interface of one Prometheus."""

    def __init__(self, url: str, scrape_interval: float = SCRAPE_INTERVAL) -> None:
        """Take its address, as ``http://127.0.0.1:9090``, and seconds."""
        self._url = url.rstrip("/")
        self.scrape_interval = scrape_interval

    def over_time(self, expr: str, span: Span, step: float) -> list[dict[str, Any]]:
        """Return the series of a range. Raises AskingError."""
        # Grafana lets points fall on whole steps, so that a refresh moves none.
        start, end = (bound // step * step for bound in (span.start, span.end))
        found: list[dict[str, Any]] = self._get(
            "query_range", query=expr, start=start, end=end, step=step
        )["result"]
        return [_series(one["metric"], one["values"]) for one in found]

    def now(self, expr: str, span: Span) -> list[dict[str, Any]]:
        """Return the series of the end of a range. Raises AskingError."""
        found = self._get("query", query=expr, time=span.end)["result"]
        return [_series(one["metric"], [one["value"]]) for one in found]

    def _get(self, path: str, **asked: object) -> Any:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310 - http, as it was given
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            said = json.load(error).get("error", error.reason)
            raise AskingError(f"Prometheus says {said!r} to {asked}") from error
        except OSError as error:
            raise AskingError(f"no Prometheus at {self._url}: {error}") from error


def ask(
    prometheus: Prometheus,
    board: Mapping[str, Any],
    span: Span,
    chosen: Mapping[str, str],
    *,
    width: int,
) -> dict[str, Any]:
    """Ask every query of a board for a page so wide. Raises AskingError.

    The answers are by the number of a panel, beside them are annotations, and what was
    chosen. A variable that is not in ``chosen`` has the value the board begins with.
    """
    variables = board["templating"]["list"]
    known = {one["name"]: _begun(one) for one in variables} | dict(chosen)
    panels = {
        panel["id"]: {"queries": list(_queries(prometheus, panel, span, known, width))}
        for panel in board["panels"]
        if panel["type"] != "row"
    }
    choices = [
        {
            "name": one["label"],
            "value": chosen.get(one["name"], ", ".join(_listed(one, "text"))),
        }
        for one in variables
    ]
    marks = list(_marks(prometheus, board, span, known))
    return {"answers": panels, "marks": marks, "choices": choices}


def _queries(
    prometheus: Prometheus,
    panel: Mapping[str, Any],
    span: Span,
    chosen: Mapping[str, str],
    width: int,
) -> Iterator[dict[str, Any]]:
    scrape_interval = prometheus.scrape_interval
    apart = step(span, width * panel["gridPos"]["w"] // 24, scrape_interval)
    for target in panel["targets"]:
        expr = filled(target["expr"], chosen, span, apart, scrape_interval)
        if target.get("instant"):
            series = prometheus.now(expr, span)
        else:
            series = prometheus.over_time(expr, span, apart)
        for one in series:
            one["name"] = legend(target.get("legendFormat", ""), one["labels"])
        yield {"refId": target["refId"], "step": apart * 1000, "series": series}


def _marks(
    prometheus: Prometheus,
    board: Mapping[str, Any],
    span: Span,
    chosen: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    for mark in board["annotations"]["list"]:
        expr = filled(mark["target"]["expr"], chosen, span, _MARK_STEP)
        for series in prometheus.over_time(expr, span, _MARK_STEP):
            times = series["values"] if mark.get("useValueForTime") else series["times"]
            yield {
                "colour": mark["iconColor"],
                "from": min(times),
                "to": max(times),
            }


def _series(
    labels: Mapping[str, str], points: Sequence[tuple[float, str]]
) -> dict[str, Any]:
    return {
        "labels": dict(labels),
        "times": [1000 * at for at, _ in points],
        "values": [float(value) for _, value in points],
    }


def _begun(variable: Mapping[str, Any]) -> str:
    value = "|".join(_listed(variable, "value"))
    return str(variable["allValue"]) if value == "$__all" else value


def _listed(variable: Mapping[str, Any], what: str) -> list[str]:
    current = variable["current"][what]
    return current if isinstance(current, list) else [current]
