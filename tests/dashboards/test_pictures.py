"""Pictures of boards are drawn from what Grafana would ask, and show every panel."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dashboards import reading
from dashboards.pictures.asking import (
    AskingError,
    Prometheus,
    Span,
    ask,
    filled,
    legend,
    step,
)
from tests.absent import absent
from tests.django_site.programs import ROOT, environment

BOARDS = {board["uid"]: board for board in reading.boards()}
HOUR = Span(1_800_000_000, 1_800_003_600)


@pytest.mark.parametrize(
    ("seconds", "points", "apart"),
    [
        (300, 700, 15),  # no finer than it is scraped
        (3_600, 700, 15),
        (3_600, 120, 30),
        (86_400, 700, 120),
        (30 * 86_400, 700, 3_600),
    ],
)
def test_points_are_as_far_apart_as_in_grafana(
    seconds: int, points: int, apart: float
) -> None:
    assert step(Span(0, seconds), points) == apart


def test_a_site_that_is_scraped_often_has_its_points_close() -> None:
    assert step(Span(0, 600), 600, scrape_interval=1) == 1


@pytest.mark.parametrize(
    ("apart", "interval", "window"), [(15, 15, "60s"), (120, 15, "135s"), (1, 1, "4s")]
)
def test_a_rate_spans_four_scrapes_at_least(
    apart: float, interval: float, window: str
) -> None:
    expr = filled("rate(x[$__rate_interval])", {}, HOUR, apart, interval)

    assert expr == f"rate(x[{window}])"


def test_what_was_chosen_stands_in_the_query_however_it_is_written() -> None:
    chosen = {"job": ".+", "jobs": "no"}

    expr = filled('increase(x{job=~"$job", a="${job}"}[$__range])', chosen, HOUR, 15)

    assert expr == 'increase(x{job=~".+", a=".+"}[3600s])'


def test_a_variable_that_nobody_knows_is_left_for_prometheus_to_refuse() -> None:
    assert filled('x{a="$nobody"}', {}, HOUR, 15) == 'x{a="$nobody"}'


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{{consumer}} p99", "audit p99"),
        ("{{ consumer }}/{{reason}}", "audit/"),
        ("", 'gomq_x{consumer="audit", job="site"}'),
        ("__auto", 'gomq_x{consumer="audit", job="site"}'),
        ("all", "all"),
    ],
)
def test_a_legend_is_made_of_labels(pattern: str, name: str) -> None:
    labels = {"__name__": "gomq_x", "consumer": "audit", "job": "site"}

    assert legend(pattern, labels) == name


@contextmanager
def prometheus(status: int, body: Any) -> Iterator[tuple[Prometheus, list[str]]]:
    """A server that gives one answer to everything, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Prometheus(f"http://127.0.0.1:{server.server_port}"), asked
        finally:
            server.shutdown()
            thread.join()


SERIES = {"metric": {"consumer": "audit"}, "value": [1, "2"], "values": [[1, "2"]]}


def test_every_query_of_a_board_is_asked_with_everything_chosen() -> None:
    board = BOARDS["gomq-overview"]

    with prometheus(200, {"data": {"result": [SERIES]}}) as (server, asked):
        found = ask(server, board, HOUR, {}, width=1400)

    exprs = [parse_qs(urlsplit(path).query)["query"][0] for path in asked]
    assert len(exprs) == len([*reading.queries(board)]) + len(reading.marks(board))
    assert not [expr for expr in exprs if "$" in expr]
    assert set(found["answers"]) == {one["id"] for one in reading.panels(board)}
    assert {one["value"] for one in found["choices"]} == {"default", "All"}


def test_points_fall_on_whole_steps() -> None:
    with prometheus(200, {"data": {"result": []}}) as (server, asked):
        server.over_time("x", Span(1_007, 1_304), 15)

    (query,) = (parse_qs(urlsplit(path).query) for path in asked)
    assert (query["start"], query["end"], query["step"]) == (["1005"], ["1290"], ["15"])


def test_what_prometheus_refuses_is_told_with_its_reason() -> None:
    with (
        prometheus(400, {"error": "unexpected end of input"}) as (server, _),
        pytest.raises(AskingError, match=r"unexpected end of input.*sum\("),
    ):
        server.now("sum(", HOUR)


def test_a_prometheus_that_is_away_is_named() -> None:
    with pytest.raises(AskingError, match="no Prometheus at http://127.0.0.1:1"):
        Prometheus("http://127.0.0.1:1").now("up", HOUR)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # the packages are fetched the first time
def test_no_panel_of_the_overview_is_empty_or_says_an_error(tmp_path: Path) -> None:
    for program in ("prometheus", "prometheus-alertmanager", "chromium"):
        if shutil.which(program) is None:
            absent(f"there is no {program}; to run it: apt-get install {program}")
    for program in ("npm", "pngquant"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}; to run it: apt-get install {program}")
    command = [sys.executable, "example_project/pictures.py", "--seconds", "60"]
    command += ["--out", str(tmp_path), "gomq-overview"]

    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(DJANGO_SETTINGS_MODULE="clinic.settings"),
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for scheme in ("light", "dark"):
        file = tmp_path / f"board-overview-{scheme}.png"
        assert 10_000 < file.stat().st_size < 250_000
