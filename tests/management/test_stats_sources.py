"""``gomq stats`` where there is nothing to read: it says what, where, what to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError
from django.test import override_settings

from django_gomq.management.stats import sources
from django_gomq.management.stats.numbers import take
from django_gomq.management.stats.sources import LocalPages, Page
from tests.django_site.waiting import SECONDS
from tests.management.commanding import PATIENT, gomq, run_gomq
from tests.management.waiting_site import waiting_site
from tests.ports import free_port, free_range

TOKEN = "a secret of these tests"
GUARDED = {"METRICS": {"ACCESS": "token", "TOKEN": TOKEN}}


@contextmanager
def answering(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Serve one answer; gives the address, and the headers of each request."""
    asked: list[dict[str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/gomq/metrics", asked
        finally:
            server.shutdown()
            thread.join(SECONDS)


def page_at(url: str, token: str = "") -> Page:
    return Page(url, token=token, timeout=SECONDS)


def refusal(page: Page) -> str:
    with pytest.raises(CommandError) as caught:
        page.read()
    assert caught.value.returncode == 2
    assert page.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "ALLOWED_HOSTS"),
        (401, "--token"),
        (403, "GOMQ['METRICS']['ACCESS']"),
        (404, "django_gomq.urls"),
        (500, "log"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, advice: str) -> None:
    with answering(status) as (url, _):
        said = refusal(page_at(url))

    assert f"answers {status}" in said
    assert advice in said


def test_a_page_that_is_not_whole_says_why() -> None:
    with answering(503, b"The numbers are not whole: /shared/a.db is away.\n") as page:
        said = refusal(page_at(page[0]))

    assert "answers 503" in said
    assert "/shared/a.db is away." in said


def test_no_redirect_is_followed_as_the_token_would_go_along() -> None:
    with answering(200) as (other, asked):
        with answering(302, headers={"Location": other}) as (url, _):
            said = refusal(page_at(url, TOKEN))

        assert asked == []
    assert other in said


def test_a_proxy_of_the_environment_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)

    with answering(200, b"# TYPE gomq_processes gauge\ngomq_processes 1\n") as (url, _):
        assert [one.name for one in page_at(url).read()] == ["gomq_processes"]


def test_a_page_of_others_says_that_none_of_ours_is_on_it() -> None:
    with answering(200, b"# TYPE up gauge\nup 1.0\n") as (url, _):
        assert "none of django_gomq" in refusal(page_at(url))


@pytest.mark.parametrize(
    "body",
    [
        b"<!doctype html>",
        b"\xff\xfe",
        b"gomq_channel_depth{",
        b'gomq_channel_depth{a="b} 1',
        b"gomq_channel_depth many",
        b"{}",
    ],
)
def test_what_is_no_page_of_metrics_is_named_so(body: bytes) -> None:
    with answering(200, body) as (url, _):
        assert "is no page of metrics" in refusal(page_at(url))


def test_an_empty_page_is_not_fine() -> None:
    with answering(200) as (url, _):
        assert "none of django_gomq" in refusal(page_at(url))


def test_a_server_that_is_down_is_asked_about() -> None:
    page = page_at(f"http://127.0.0.1:{free_port()}/gomq/metrics")

    assert "cannot be reached" in refusal(page)


def test_a_server_that_does_not_answer_is_not_waited_for_any_longer(
    tmp_path: Path,
) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:
        url = f"http://127.0.0.1:{silent.server_port}/"

        assert "timed out" in refusal(Page(url, timeout=0.1))


def test_a_page_without_end_is_not_read_any_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter([0.0])
    clock = SimpleNamespace(monotonic=lambda: next(ticks, SECONDS + 1))
    monkeypatch.setattr(sources, "time", clock)

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"# and so on\n" * 1000)
            except OSError:
                pass  # the reader has gone

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        said = refusal(Page(url, timeout=SECONDS))
        thread.join(SECONDS)

    assert f"no end after {SECONDS:g} s" in said


def test_a_guarded_page_wants_the_token_of_the_option_or_of_the_settings(
    tmp_path: Path,
) -> None:
    settings = f"from tests.settings import *\nGOMQ = {GUARDED!r}\n"
    (tmp_path / "guarded.py").write_text(settings)
    own = ("--pythonpath", str(tmp_path), "--settings", "guarded")

    with waiting_site(gomq=GUARDED) as site:
        codes = [
            gomq("stats", *PATIENT, "--url", site.url, *more).returncode
            for more in [(), ("--token", "another"), ("--token", TOKEN)]
        ]
        by_settings = run_gomq("stats", *PATIENT, "--url", site.url, *own)

    assert codes == [2, 2, 0]
    assert by_settings.returncode == 0, by_settings.stderr


PROCESS = """\
# TYPE gomq_processes gauge
gomq_processes 1
# TYPE gomq_channel_depth gauge
gomq_channel_depth{{broker="default",consumer="audit"}} {depth}
# TYPE gomq_channel_oldest_age_seconds gauge
gomq_channel_oldest_age_seconds{{broker="default",consumer="audit"}} {age}
"""


def local_pages(ports: range = range(0)) -> LocalPages:
    path = "/gomq/metrics"
    return LocalPages(ports, "127.0.0.1", path, token=TOKEN, timeout=SECONDS)


def usual_port(monkeypatch: pytest.MonkeyPatch, url: str = "") -> str:
    """Have the usual port be that of an address, or one where nobody is."""
    port = int(url.split(":")[2].partition("/")[0]) if url else free_port()
    monkeypatch.setattr(sources, "_PORT", port)
    return f"http://127.0.0.1:{port}/gomq/metrics"


def test_without_a_source_the_usual_page_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering(200, PROCESS.format(depth=1, age=0).encode()) as (url, _):
        usual = usual_port(monkeypatch, url)
        done = gomq("stats", *PATIENT, "--json", PROMETHEUS_MULTIPROC_DIR="")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["source"], found["processes"]) == (usual, 1)


def test_the_ports_of_processes_come_first_and_add_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        answering(200, PROCESS.format(depth=1, age=9).encode()) as (first, asked),
        answering(200, PROCESS.format(depth=2, age=3).encode()) as (second, _),
    ):
        pages = local_pages(range(0))
        pages._ports = [page_at(first, TOKEN), page_at(second), page_at(nobody())]
        usual_port(monkeypatch)

        numbers = take(pages.read())

    (audit,) = numbers.consumers
    assert numbers.processes == 2
    assert (audit.depth, audit.oldest_age_seconds) == (3, 9)
    assert pages.name == f"{first} and 1 more ports"
    assert asked[0]["Authorization"] == f"Bearer {TOKEN}"


def nobody() -> str:
    return f"http://127.0.0.1:{free_port()}/metrics"


def test_where_no_port_answers_the_usual_page_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, last = free_range(3)
    with answering(200, PROCESS.format(depth=1, age=0).encode()) as (url, _):
        usual = usual_port(monkeypatch, url)
        pages = local_pages(range(first, last + 1))

        assert take(pages.read()).processes == 1

    assert pages.name == usual


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1"])
def test_without_any_numbers_all_that_was_tried_is_told(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    first, last = free_range(3)
    metrics = {"PORT_RANGE": [first, last], "PORT_ADDRESS": address}
    usual = usual_port(monkeypatch)

    with override_settings(GOMQ={"METRICS": metrics}):
        done = gomq("stats", *PATIENT, PROMETHEUS_MULTIPROC_DIR="")

    assert done.returncode == 2
    ports = f"http://127.0.0.1:{first}/metrics to http://127.0.0.1:{last}/metrics"
    for said in (ports, usual, "nobody is there", "--url", "--dir"):
        assert said in done.stderr


def test_what_answers_with_something_else_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering(401) as (url, _):
        usual_port(monkeypatch, url)
        done = gomq("stats", *PATIENT, PROMETHEUS_MULTIPROC_DIR="")

    assert done.returncode == 2
    assert "answers 401" in done.stderr
    assert "--token" in done.stderr


@override_settings(ROOT_URLCONF="tests.management.no_such_urls")
def test_a_site_without_our_urls_is_looked_for_where_most_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = usual_port(monkeypatch)

    assert usual in gomq("stats", PROMETHEUS_MULTIPROC_DIR="").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--url", "ftp://host/metrics"), "is no address"),
        (("--url", "127.0.0.1:8000"), "is no address"),
        (("--url", "http://host:port/"), "is no address"),
        (("--url", "http://[::1/"), "is no address"),
        (("--url", "http:///gomq/metrics"), "is no address"),
        (("--url", "http://me:secret@host/"), "use --token"),
        (("--url", "http://host/", "--dir", "x"), "not allowed with"),
        (("--token", "a\nb"), "printable"),
        (("--token", ""), "printable"),
        (("--max-depth", "-1"), "whole number"),
        (("--max-depth", "1.5"), "whole number"),
        (("--max-age", "nan"), "seconds"),
        (("--max-age", "-1"), "seconds"),
        (("--max-age", "inf"), "seconds"),
        (("--watch", "0"), "0 seconds"),
        (("--watch", "often"), "seconds"),
        (("--timeout", "0"), "0 seconds"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    arguments: tuple[str, ...], said: str
) -> None:
    done = gomq("stats", *arguments)

    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("is_there", [True, False])
def test_a_directory_that_is_none_is_named(tmp_path: Path, *, is_there: bool) -> None:
    path = tmp_path / "shared"
    if is_there:
        path.write_text("a file")

    done = gomq("stats", "--dir", str(path))

    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "PROMETHEUS_MULTIPROC_DIR" in done.stderr


def test_a_file_of_numbers_that_is_none_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "counter_gomq-0.db"
    broken.write_bytes(b"\xff\xff\xff\x7f" + b"nonsense" * 10)

    done = gomq("stats", "--dir", str(tmp_path))

    assert done.returncode == 2
    assert str(broken) in done.stderr


def test_what_others_share_in_the_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "counter_4711.db").write_bytes(b"not ours to judge")

    assert gomq("stats", "--dir", str(tmp_path)).returncode == 0
