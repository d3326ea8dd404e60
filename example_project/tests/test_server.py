"""The demonstration's own server says why it did not start, and leaves nothing."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest

from acceptance import rows, server
from acceptance.ports import ServerError, free_port
from acceptance.server import Server


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose `manage.py migrate` works and which has no site to serve."""
    (tmp_path / "var").mkdir()
    (tmp_path / "manage.py").write_text("")
    (tmp_path / "gunicorn.conf.py").write_text("wsgi_app = 'no_such_site:app'\n")
    monkeypatch.setattr(server, "PROJECT", tmp_path)
    return tmp_path


def test_a_server_that_dies_shows_the_tail_of_its_log(project: Path) -> None:
    with pytest.raises(ServerError, match="no_such_site"), Server(free_port()):
        pytest.fail("it cannot start")


def test_a_server_that_died_leaves_no_files(project: Path) -> None:
    with pytest.raises(ServerError), Server(free_port()):
        pytest.fail("it cannot start")

    assert list((project / "var").iterdir()) == []


def test_a_migration_that_fails_says_why(project: Path) -> None:
    (project / "manage.py").write_text("raise SystemExit('no such table')")

    with pytest.raises(ServerError, match="no such table"), Server(free_port()):
        pytest.fail("it cannot start")

    assert list((project / "var").iterdir()) == []


def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ServerError, match=rf"{port} .* PORT={port + 1}"):
            Server(port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port_is_told(port: int) -> None:
    with pytest.raises(ServerError, match="choose one of 1 to 65535"):
        Server(port)


def test_a_port_in_use_is_not_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert free_port(port) != port


def test_a_free_port_is_chosen_if_it_is_preferred() -> None:
    port = free_port(0)

    assert free_port(port) == port


def test_rows_are_counted_by_consumer(tmp_path: Path) -> None:
    database = tmp_path / "clinic.sqlite3"
    with sqlite3.connect(database) as connection:
        connection.executescript("""
            CREATE TABLE statistics_count (consumer TEXT, value INTEGER);
            INSERT INTO statistics_count VALUES ('statistics.pages', 2);
            INSERT INTO statistics_count VALUES ('statistics.pages', 3);
            CREATE TABLE audit_auditentry (id INTEGER);
            INSERT INTO audit_auditentry VALUES (1);
            CREATE TABLE laboratory_analysis (id INTEGER);
            CREATE TABLE notifications_notification (id INTEGER);
        """)
    connection.close()

    assert rows.written(database) == {
        "audit.trail": 1,
        "laboratory.analysis": 0,
        "notifications.patient": 0,
        "statistics.pages": 5,
        "statistics.patients": 0,
        "statistics.records": 0,
    }
