from __future__ import annotations

from pathlib import Path

import pytest

from django_gomq.process.deployment import (
    Deployment,
    read_command,
    read_config,
    read_gunicorn,
)

NOTHING = Deployment()


@pytest.mark.parametrize(
    ("config", "environ", "told"),
    [
        (None, {}, NOTHING),
        (None, {"WEB_CONCURRENCY": "4"}, Deployment(workers=4)),
        ("", {}, Deployment(None, 30.0)),
        ("", {"WEB_CONCURRENCY": "4"}, Deployment(4, 30.0)),
        ("workers = 3\ngraceful_timeout = 5", {}, Deployment(3, 5.0)),
        ("workers = 3", {"WEB_CONCURRENCY": "4"}, Deployment(3, 30.0)),
        (
            "workers = 3",
            {"GUNICORN_CMD_ARGS": "-w 2 --graceful-timeout=7 --bind :80"},
            Deployment(2, 7.0),
        ),
        (None, {"GUNICORN_CMD_ARGS": "--workers 2"}, Deployment(2, 30.0)),
    ],
)
def test_gunicorns_own_order_of_settings_is_kept(
    config: str | None, environ: dict[str, str], told: Deployment
) -> None:
    assert read_gunicorn(config, environ) == told


def test_a_config_is_read_and_never_run() -> None:
    config = "raise SystemExit\nworkers = 2 * cores()\ngraceful_timeout = timeout = 9"

    assert read_gunicorn(config, {}) == Deployment(None, 9.0)


@pytest.mark.parametrize(
    ("config", "arguments"),
    [("workers = (", ""), ("", "--workers"), ("workers = 'many'", "-w x")],
)
def test_what_gunicorn_itself_would_refuse_tells_nothing(
    config: str, arguments: str
) -> None:
    environ = {"GUNICORN_CMD_ARGS": arguments}

    assert read_gunicorn(config, environ) == Deployment(None, 30.0)


@pytest.mark.parametrize(
    ("argv", "environ", "told"),
    [
        ([], {}, NOTHING),
        (["manage.py", "runserver", "--workers", "3"], {}, NOTHING),
        (["/bin/gunicorn", "shop.wsgi", "-w", "3"], {}, Deployment(3, 9.0)),
        (
            ["/lib/gunicorn/__main__.py", "--graceful-timeout", "5", "shop.wsgi"],
            {"WEB_CONCURRENCY": "2"},
            Deployment(2, 5.0),
        ),
        (
            ["gunicorn", "shop.wsgi", "--workers", "4"],
            {"GUNICORN_CMD_ARGS": "--workers 2"},
            Deployment(4, 9.0),
        ),
        (["uvicorn", "shop.asgi:application", "--workers=2"], {}, Deployment(2)),
        (["uvicorn", "shop.asgi"], {"WEB_CONCURRENCY": "3"}, Deployment(3)),
        (["granian", "shop.wsgi"], {"GRANIAN_WORKERS": "4"}, Deployment(4)),
    ],
)
def test_a_running_server_tells_by_its_command_line(
    argv: list[str], environ: dict[str, str], told: Deployment
) -> None:
    config = "graceful_timeout = 9"

    assert read_command(argv, environ, config) == told


def test_gunicorns_file_is_read_where_it_is(tmp_path: Path) -> None:
    before = read_config(tmp_path)
    (tmp_path / "gunicorn.conf.py").write_text("workers = 3")

    assert (before, read_config(tmp_path)) == (None, "workers = 3")
