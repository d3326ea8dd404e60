"""Whether consumers run in this process: a pure rule of its command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Final

from django_gomq.conf import Config, Run
from django_gomq.testing import modes

IDLE_COMMANDS: Final = frozenset(
    {
        "check",
        "collectstatic",
        "compilemessages",
        "createcachetable",
        "diffsettings",
        "findstatic",
        "flush",
        "inspectdb",
        "makemessages",
        "makemigrations",
        "migrate",
        "optimizemigration",
        "showmigrations",
        "sqlflush",
        "sqlmigrate",
        "sqlsequencereset",
        "squashmigrations",
        "test",
    }
)
"""Management commands that prepare a site rather than run it."""

SERVER_COMMANDS: Final = frozenset({"runserver", "testserver"})
_MANAGERS: Final = frozenset({"manage", "django-admin"})  # with or without .py


def command_of(argv: Sequence[str]) -> str | None:
    """Return the management command of a command line; None for a server's own."""
    if not argv or not _is_manager(argv[0]):
        return None
    return argv[1] if len(argv) > 1 else "help"


# Every commit with an event asks this of the same name: 4 us each time.
@lru_cache(maxsize=16)
def _is_manager(program: str) -> bool:
    path = PurePath(program)
    is_module = path.name == "__main__.py" and path.parent.name == "django"
    return path.stem in _MANAGERS or is_module


def consumers_run(run: Run, argv: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether an emit may start consumers in the process so described.

    ``GOMQ_RUN`` in the environment wins over the setting.
    """
    wanted = environ.get("GOMQ_RUN") or run
    if wanted != "auto":
        return wanted == "here"
    return not is_idle(argv) and not is_reloader_parent(argv, environ)


def is_idle(argv: Sequence[str]) -> bool:
    """Whether this command line only prepares a site, or looks at one.

    Of ``manage.py gomq`` every subcommand looks, but for its worker.
    """
    command = command_of(argv)
    if command == "gomq":
        return "worker" not in argv
    return command in IDLE_COMMANDS


def is_reloader_parent(argv: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether this is runserver's outer process, which only watches files."""
    if command_of(argv) != "runserver" or "--noreload" in argv:
        return False
    return environ.get("RUN_MAIN") != "true"


def runs_here(run: Run) -> bool:
    """Return whether an emit may start consumers in this process."""
    return consumers_run(run, _argv(), os.environ)


def _argv() -> Sequence[str]:
    # Inside live() a test stands for a server, also under "manage.py test".
    return [] if modes.is_forced() else sys.argv


def serves_requests() -> bool:
    """Whether this process answers requests, so that a commit must not wait long."""
    command = command_of(_argv())
    return command is None or command in SERVER_COMMANDS


def drain_timeout(configured: float | None) -> float:
    """Return how many seconds the end of this process may wait for its messages.

    A developer waits for ``runserver`` after each change of a file, so it is short
    there unless the setting says otherwise.
    """
    if configured is not None:
        return configured
    return 1.0 if command_of(_argv()) == "runserver" else 10.0


def shows_all_processes(config: Config) -> bool:
    """Whether the numbers of every worker process reach Prometheus."""
    is_added_up = bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
    return is_added_up or config.metrics.port_range is not None
