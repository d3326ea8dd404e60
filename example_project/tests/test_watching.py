"""What stands beside the clinic starts, says what is missing, and leaves nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from acceptance.server import PROJECT
from watching import observatory, program
from watching.program import INSTALL, Program, ProgramError, find
from watching.webhook import Notice, Webhook

FILES = PROJECT / "observability"
ROOT = PROJECT.parent


def need(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name}; to run it: {INSTALL}")
    return path


def test_a_program_that_is_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(ProgramError, match=r"no-such-program.*apt-get install"):
        find("no-such-program", "nor-this-one")


def test_a_program_that_dies_shows_the_tail_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such flag')"]

    with (
        pytest.raises(ProgramError, match="no such flag"),
        Program(command, "http://127.0.0.1:1", tmp_path / "log"),
    ):
        pytest.fail("it cannot start")


def test_a_program_that_is_never_ready_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "START_TIMEOUT", 0.2)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    silent = Program(command, "http://127.0.0.1:1", tmp_path / "log")

    with pytest.raises(ProgramError, match="did not start"), silent:
        pytest.fail("it answers nothing")

    assert silent.is_closed


def test_a_notice_of_alertmanager_is_handed_on() -> None:
    came: list[Notice] = []
    alert = {"status": "firing", "labels": {"a": "b"}, "annotations": {"summary": "Oh"}}

    with Webhook(came.append) as webhook:
        body = json.dumps({"alerts": [alert]}).encode()
        urlopen(Request(f"http://{webhook.address}/", data=body)).close()

    assert came == [Notice("firing", {"a": "b"}, {"summary": "Oh"})]
    assert str(came[0]) == "  FIRING  Oh"


def test_the_configurations_are_valid() -> None:
    for command in (
        [need("promtool"), "check", "config", str(FILES / "prometheus.yml")],
        [need("amtool"), "check-config", str(FILES / "alertmanager.yml")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_replaced_stands_in_the_configurations() -> None:
    text = (FILES / "prometheus.yml").read_text()
    assert re.findall(rf"(\w+){observatory._EVERY}\n", text) == ["scrape", "evaluation"]
    assert f'["{observatory._SITE}"]' in text
    assert f'["{observatory._ALERTMANAGER}"]' in text
    assert f"- {observatory._RULES}/*.yml" in text
    assert f"http://{observatory._WEBHOOK}/" in (FILES / "alertmanager.yml").read_text()


def test_every_file_that_containers_are_given_is_there() -> None:
    texts = [file.read_text() for file in FILES.rglob("*.y*ml")]
    paths = re.findall(
        r"/gomq/((?:django_gomq|example_project)/[\w./-]+)", "\n".join(texts)
    )

    assert len(paths) >= 4
    for path in paths:
        assert (ROOT / path).exists(), path


def test_grafana_is_told_of_data_sources_that_exist() -> None:
    text = (FILES / "grafana/provisioning/datasources/datasources.yaml").read_text()
    named = set(re.findall(r"^    uid: (\w+)$", text, re.MULTILINE))

    assert named == {"prometheus", "alertmanager", "traces"}
    assert set(re.findall(r"(?:datasourceUid|alertmanagerUid): (\w+)", text)) < named


def test_observe_watches_a_site_and_ends_in_order() -> None:
    need("prometheus")
    need("prometheus-alertmanager")

    command = [
        sys.executable,
        "observe.py",
        "--target",
        "127.0.0.1:1",
        "--seconds",
        "1",
    ]
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        said, _ = process.communicate(timeout=120)

    assert process.returncode == 0, said
    assert re.search(r"graphs  http://127\.0\.0\.1:\d+/graph", said)
    assert list((PROJECT / "var").glob(f"observe-{process.pid}-*")) == []
