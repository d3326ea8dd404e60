"""What this process is for: whether consumers run in it, and whether it may wait.

A command line is known by Django's own words for it, as a console script (``mysite
migrate``) and ``python -m mysite migrate`` run commands too: which command runs stands
on the stack of the thread that runs it.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any, Final

from django.core.signals import request_started
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from django_gomq.capturing import is_forced, is_test_environment
from django_gomq.conf import Config, Run

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
        "migrate_schemas",  # of django-tenants
        "optimizemigration",
        "showmigrations",
        "sqlflush",
        "sqlmigrate",
        "sqlsequencereset",
        "squashmigrations",
        "test",
    }
)
"""Management commands that prepare a site rather than run it; a site may add more."""

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


def consumers_run(
    run: Run,
    argv: Sequence[str],
    environ: Mapping[str, str],
    idle: Collection[str] = (),
    *,
    has_server: bool = False,
) -> bool:
    """Return whether consumers run in the process so described.

    Those of a backend with a server run in ``gomq worker``, and under ``runserver``;
    those of memory wherever events are emitted. ``GOMQ_RUN`` in the environment wins
    over the setting; ``idle`` are commands that the site adds to IDLE_COMMANDS.
    """
    wanted = environ.get("GOMQ_RUN") or run
    if wanted in ("here", "never"):
        return wanted == "here"
    if is_idle(argv, idle) or is_reloader_parent(argv, environ):
        return False
    if wanted == "worker":
        return is_worker(argv)
    return not has_server or is_worker(argv) or command_of(argv) == "runserver"


def is_worker(argv: Sequence[str]) -> bool:
    """Whether this command line runs the consumers of servers."""
    return command_of(argv) == "gomq" and _subcommand(argv) == "worker"


_VALUED: Final = frozenset({"--settings", "--pythonpath", "-v", "--verbosity"})


def _subcommand(argv: Sequence[str]) -> str:
    """Return the first word behind the command that is no option, or one's value."""
    words = iter(argv[2:])
    for word in words:
        if word in _VALUED:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return ""


def is_idle(argv: Sequence[str], idle: Collection[str] = ()) -> bool:
    """Whether this command line only prepares a site, or looks at one.

    Of ``manage.py gomq`` every subcommand looks, but for its worker.
    """
    command = command_of(argv)
    if command == "gomq":
        return not is_worker(argv)
    return command in IDLE_COMMANDS or command in idle


def is_reloader_parent(argv: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether this is runserver's outer process, which only watches files."""
    if command_of(argv) != "runserver" or "--noreload" in argv:
        return False
    return not is_reloaded(environ)


def is_reloaded(environ: Mapping[str, str]) -> bool:
    """Whether an outer process watches files, and starts this one anew."""
    return environ.get(DJANGO_AUTORELOAD_ENV) == "true"


class _Process:
    """What was seen of this process; a forked child goes on with it."""

    argv: Sequence[str] | None = None
    """Of the management command inside which Django was set up."""
    has_served = False
    """Whether a server made its application here, or a request came."""


_process: Final = _Process()
_MANAGE: Final = "manage.py"
_UID: Final = "django_gomq.process.role"


def note_setup() -> None:
    """Look at what sets Django up, and listen for the first request; in ready()."""
    stack = sys._getframe()  # noqa: SLF001 - documented
    _process.argv = _command_on(stack)
    _process.has_served = _find_call(stack, _servers()) is not None
    request_started.connect(_note_request, dispatch_uid=_UID)


def _note_request(sender: Any, **signal: object) -> None:
    # The client of django.test answers itself, also in a command that fills a cache.
    is_test = str(getattr(sender, "__module__", "")).startswith(_TESTS)
    if not is_test and not is_test_environment():
        _process.has_served = True
        request_started.disconnect(dispatch_uid=_UID)


_TESTS: Final = "django.test."


def _servers() -> Collection[CodeType]:
    """Return what a server calls to have an application; itself it may be anything."""
    return [
        getattr(module, f"get_{kind}_application").__code__
        for kind in ("wsgi", "asgi")
        if (module := sys.modules.get(f"django.core.{kind}")) is not None
    ]


def _command_on(stack: FrameType | None) -> Sequence[str] | None:
    """Return the command line of the management command that runs on this stack.

    ``call_command`` makes no process a command: a request may use it.
    """
    management: Any = sys.modules.get("django.core.management")
    if management is None:
        return None
    utility = management.ManagementUtility.execute.__code__
    by_hand = management.BaseCommand.run_from_argv.__code__
    frame = _find_call(stack, (utility, by_hand))
    if frame is None:
        return None
    names = frame.f_locals
    argv = names["self"].argv if frame.f_code is utility else names["argv"]
    return [_MANAGE, *argv[1:]]


def _find_call(
    stack: FrameType | None, wanted: Collection[CodeType]
) -> FrameType | None:
    """Return the innermost call of one of these functions."""
    while stack is not None and stack.f_code not in wanted:
        stack = stack.f_back
    return stack


def runs_here(
    run: Run, idle: Collection[str] = (), *, has_server: bool = False
) -> bool:
    """Return whether consumers run in this process."""
    if has_server and not is_forced():  # inside live() a test is its own worker
        return consumers_run(run, _line(), os.environ, idle, has_server=True)
    argv = _argv()
    if argv is sys.argv and not _is_forced_or_serves() and command_of(argv) is None:
        # A program that set Django up first may have come to its command since.
        main = threading.main_thread().ident
        frames = sys._current_frames()  # noqa: SLF001 - documented
        argv = _command_on(frames.get(main or 0)) or argv
    return consumers_run(run, argv, os.environ, idle)


def starts_by_itself() -> bool:
    """Whether consumers of servers start here without an emit, or a command for it."""
    argv = _line()
    is_runserver = command_of(argv) == "runserver"
    return is_runserver and not is_reloader_parent(argv, os.environ)


def _argv() -> Sequence[str]:
    # Inside live() a test stands for a server, also under "manage.py test".
    if _is_forced_or_serves():
        return ()
    return _line()


def _line() -> Sequence[str]:
    return sys.argv if _process.argv is None else _process.argv


def _is_forced_or_serves() -> bool:
    return _process.has_served or is_forced()


def serves_requests() -> bool:
    """Whether this process answers requests, so that nobody may wait long in it.

    That is a server, known by the application it makes or by its first request. All
    else is a management command, a script, a notebook, a task of Celery.
    """
    return _is_forced_or_serves() or command_of(_argv()) in SERVER_COMMANDS


def may_wait() -> bool:
    """Whether a publisher in this process may wait for room without being asked to."""
    return not serves_requests()


DRAIN_SECONDS: Final = 10.0
"""How long the end of a server may take, and that by a signal of any process."""


def role_name() -> str:
    """Return what this process is: "web", "worker", "celery", a command, "script"."""
    line = _line()
    if is_worker(line):
        return "worker"
    if serves_requests():
        return "web"
    return "celery" if _is_celery() else command_of(line) or "script"


def only_looks(idle: Collection[str] = ()) -> bool:
    """Whether this process does nothing that others would want to see of the bus.

    ``idle`` are commands that the site adds to IDLE_COMMANDS.
    """
    argv = _argv()
    return is_idle(argv, idle) or is_reloader_parent(argv, os.environ)


def reports_mistakes() -> bool:
    """Whether this command tells what is wrong with a site, and so must not end of it.

    It runs the system checks.
    """
    argv = _argv()
    command = command_of(argv)
    is_ours = command == "gomq" and _subcommand(argv) in ("doctor", "list")
    return command == "check" or is_ours


def drain_timeout(configured: float | None) -> float:
    """Return how many seconds a stop that nobody hurries may wait for its messages.

    Without limit where nobody waits for the end: in a command and in a script. A
    developer waits for ``runserver`` after each change of a file, so it is short there
    unless the setting says otherwise.
    """
    if configured is not None:
        return configured
    is_waited_for = serves_requests() or _is_celery() or is_worker(_line())
    return signal_timeout(None) if is_waited_for else math.inf


def signal_timeout(configured: float | None) -> float:
    """Return the same where a signal asked for the end: who sent it will not wait."""
    if configured is not None:
        return configured
    return 1.0 if command_of(_line()) == "runserver" else DRAIN_SECONDS


def _is_celery() -> bool:
    program = PurePath(sys.argv[0] if sys.argv else "")
    return "celery" in (program.stem, program.parent.name)


def shows_all_processes(config: Config) -> bool:
    """Whether the numbers of every worker process reach Prometheus."""
    is_added_up = bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
    return is_added_up or config.metrics.port_range is not None
