"""``gomq stats`` of real processes: by their page, and by what they share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.django_site.programs import serving
from tests.django_site.waiting import wait_until
from tests.management.commanding import PATIENT, gomq
from tests.management.waiting_site import WAITING, WaitingSite, waiting_site

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[WaitingSite]:
    with waiting_site(directory=folder) as one:
        yield one


def stats(*arguments: str, **environ: str) -> dict[str, Any]:
    done = gomq("stats", *PATIENT, "--json", *arguments, **environ)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def by_name(rows: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one[kind]: one for one in rows}


def check_waiting(found: dict[str, Any]) -> None:
    consumer = by_name(found["consumers"], "consumer")["clinic.statistics"]
    event = by_name(found["events"], "event")["clinic.record.saved"]
    assert found["processes"] == 1
    assert (consumer["depth"], consumer["handled"]) == (WAITING, 1)
    assert consumer["paused"] is True
    assert consumer["handler_seconds_est"]["p95"] > 0
    assert (event["published"], event["depth"]) == (WAITING + 1, 0)


def test_a_page_tells_what_waits_and_what_was_handled(site: WaitingSite) -> None:
    found = stats("--url", site.url)

    check_waiting(found)
    assert found["source"] == site.url


def test_the_shared_directory_tells_the_same(site: WaitingSite, folder: Path) -> None:
    found = stats("--dir", str(folder))

    check_waiting(found)
    assert found["source"] == str(folder)


def test_the_directory_of_the_environment_is_the_default(
    site: WaitingSite, folder: Path
) -> None:
    check_waiting(stats(**{DIRECTORY: str(folder)}))


def test_looking_leaves_the_directory_as_it_is(site: WaitingSite, folder: Path) -> None:
    before = sorted(one.name for one in folder.iterdir())

    stats("--dir", str(folder), **{DIRECTORY: str(folder)})

    assert sorted(one.name for one in folder.iterdir()) == before


def test_the_table_has_a_row_for_each_consumer_and_event(site: WaitingSite) -> None:
    done = gomq("stats", *PATIENT, "--url", site.url)

    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["clinic.statistics", "1", "0", "0", "0", "0"] in rows
    now = ["clinic.statistics", "(paused)", "5/1000", "0", "0"]
    assert now in [row[:5] for row in rows]
    assert ["clinic.record.saved", "6", "0/1000", "0", "0"] in rows
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_what_is_wrong_is_coloured(site: WaitingSite) -> None:
    page = (*PATIENT, "--url", site.url)
    plain = gomq("stats", *page, "--max-depth", "4")
    coloured = gomq("stats", "--force-color", *page, "--max-depth", "4")

    assert "\x1b[" not in plain.stdout
    assert "mclinic.statistics (paused)\x1b[0m" in coloured.stdout
    assert "mover: Channel" in coloured.stdout


@pytest.mark.parametrize(
    ("limits", "code", "said"),
    [
        (("--max-depth", "5"), 0, ""),
        (("--max-depth", "4"), 1, "Channel 'clinic.statistics'"),
        (("--max-age", "600"), 0, ""),
        (("--max-age", "0.001"), 1, "consumer 'clinic.statistics'"),
        (("--max-age", "600", "--max-depth", "0"), 1, "holds 5 messages"),
    ],
)
def test_a_limit_is_an_exit_code_and_a_sentence(
    site: WaitingSite, limits: tuple[str, ...], code: int, said: str
) -> None:
    done = gomq("stats", *PATIENT, "--url", site.url, *limits)

    assert done.returncode == code, done.stderr
    assert ("over: " in done.stdout) is (code == 1)
    assert said in done.stdout


def test_json_says_what_is_over(site: WaitingSite) -> None:
    done = gomq("stats", *PATIENT, "--url", site.url, "--json", "--max-depth", "4")

    assert done.returncode == 1
    (over,) = json.loads(done.stdout)["over"]
    assert "holds 5 messages, more than 4" in over


def test_a_process_that_was_killed_holds_nothing_any_more_and_has_counted(
    tmp_path: Path,
) -> None:
    with waiting_site(directory=tmp_path) as one:
        one.kill()

        found = stats("--dir", str(tmp_path))

    event = by_name(found["events"], "event")["clinic.record.saved"]
    assert event["published"] == WAITING + 1
    assert found["processes"] == 0
    assert found["consumers"] == []


def test_two_processes_add_up(tmp_path: Path) -> None:
    with waiting_site(directory=tmp_path), waiting_site(directory=tmp_path, waiting=2):
        found = stats("--dir", str(tmp_path), "--max-depth", "7")

    consumer = by_name(found["consumers"], "consumer")["clinic.statistics"]
    assert (consumer["depth"], consumer["handled"]) == (WAITING + 2, 2)
    assert consumer["capacity"] == 2000


def test_an_empty_directory_is_fine_and_says_that_nothing_was_counted(
    tmp_path: Path,
) -> None:
    done = gomq("stats", "--dir", str(tmp_path), "--max-depth", "0")

    assert done.returncode == 0, done.stderr
    assert "No process has counted anything so far." in done.stdout


def test_gunicorns_workers_add_up_on_the_page_and_in_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gunicorn", reason="pip install gunicorn")
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv(DIRECTORY, str(shared))

    with serving(tmp_path, "--workers", "2") as server:
        for number in range(1, 9):
            server.get(f"/save?record={number}")
        url = f"{server.url}/gomq/metrics"
        wait_until(lambda: _handled("--url", url) == 8, "all that was emitted")
        wait_until(lambda: _handled("--dir", str(shared)) == 8, "the same, shared")


def _handled(*source: str) -> int:
    found = stats(*source)
    count: int = by_name(found["consumers"], "consumer")["clinic.statistics"]["handled"]
    return count
