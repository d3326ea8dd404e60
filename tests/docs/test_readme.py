"""The README's examples, pasted into a fresh project, do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.django_site.waiting import SECONDS
from tests.docs.pasting import (
    environment,
    paste,
    running,
    section,
    start_project,
)
from tests.ports import free_port

SUCCESS = (
    'gomq_messages_processed_total{broker="default",'
    'consumer="mysite.count_view",event="page.viewed",outcome="success"} 1.0'
)


def manage(project: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def health(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with all that the README shows, step by step."""
    project = tmp_path_factory.mktemp("health")
    start_project(project)
    paste(section("Fifteen lines", project), project)
    manage(project, "startapp", "health")
    paste(section("Use", project), project)
    manage(project, "makemigrations", "health")
    manage(project, "migrate")
    return project


def test_the_test_of_the_readme_passes(health: Path) -> None:
    assert "Ran 1 test" in manage(health, "test")


def test_the_commands_of_the_readme_find_nothing_amiss(health: Path) -> None:
    assert "no issues" in manage(health, "check", "--fail-level", "WARNING")
    manage(health, "gomq", "list", "--strict")


def test_the_views_of_the_readme_emit_what_its_consumers_handle(health: Path) -> None:
    port = free_port()
    command = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
    with running(health, command, port) as server:
        server.wait_for("/records/many/", "saved")
        assert server.get("/records/") == "saved"
        assert server.get("/look/") == "seen"
        for consumer, event, count in (
            ("health.statistics", "health.record.saved", 101),
            ("health.audit", "health.record.saved", 101),
            ("health.warm_cache", "page.viewed", 1),
        ):
            server.wait_for(
                "/gomq/metrics",
                'gomq_messages_processed_total{broker="default",'
                f'consumer="{consumer}",event="{event}",outcome="success"}} {count}.0',
            )


def test_the_fifteen_lines_handle_and_count_an_event(tmp_path: Path) -> None:
    start_project(tmp_path)

    pasted = paste(section("Fifteen lines", tmp_path), tmp_path)

    assert pasted == ["mysite/settings.py", "mysite/consumers.py", "mysite/urls.py"]
    port = free_port()
    command = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
    with running(tmp_path, command, port) as server:
        server.wait_for("/", "hello")
        server.wait_for("/gomq/metrics", SUCCESS)
        assert "handled /" in server.log
