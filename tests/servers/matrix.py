"""Every server and way to run it that is tried, and which trigger drains it."""

from __future__ import annotations

import shlex
from typing import Final

from tests.servers.configuration import Configuration, Trigger

_WSGI: Final = "tests.servers.ward.wsgi:application"
_ASGI: Final = "tests.servers.ward.asgi:application"
_LIFESPAN: Final = "tests.servers.ward.lifespan:application"
_DIE: Final = "--die-on-term"
_FINISH: Final = "--hook-master-start 'unix_signal:15 gracefully_kill_them_all'"
_THREADS: Final = "--worker-class gthread --threads 4"
_GEVENT: Final = "--worker-class gevent"
_UVICORN: Final = "--worker-class uvicorn_worker.UvicornWorker"


def _name(server: str, options: str, application: str) -> str:
    lifespan = " with Lifespan" if application == _LIFESPAN else ""
    return f"{server} {options}".strip() + lifespan


def gunicorn(
    options: str = "",
    *,
    workers: int = 1,
    application: str = _WSGI,
    trigger: Trigger = "threading",
    is_representative: bool = False,
) -> Configuration:
    """Return gunicorn with these options."""
    if workers > 1:
        options = f"--workers {workers} {options}".strip()
    command = ("gunicorn", application, "--bind", "127.0.0.1:0", "--no-control-socket")
    return Configuration(
        name=_name("gunicorn", options, application),
        command=(*command, *options.split()),
        needs=_worker_of(options),
        workers=workers,
        trigger=trigger,
        is_representative=is_representative,
    )


def _worker_of(options: str) -> str:
    if _UVICORN in options:
        return "uvicorn_worker"
    return "gevent" if _GEVENT in options else "gunicorn"


def uvicorn(
    options: str = "",
    *,
    workers: int = 1,
    application: str = _LIFESPAN,
    trigger: Trigger | None = "lifespan",
    why_lost: str = "",
    is_representative: bool = False,
) -> Configuration:
    """Return uvicorn with these options."""
    if workers > 1:
        options = f"--workers {workers} {options}".strip()
    return Configuration(
        name=_name("uvicorn", options, application),
        command=("uvicorn", application, "--port", "0", *options.split()),
        needs="uvicorn",
        workers=workers,
        trigger=trigger,
        why_lost=why_lost,
        is_representative=is_representative,
    )


def _granian(
    options: str, application: str, trigger: Trigger, *, workers: int = 1
) -> Configuration:
    return Configuration(
        name=_name("granian", options, application),
        command=("granian", application, "--port", "{port}", *options.split()),
        port="chosen",
        needs="granian",
        workers=workers,
        trigger=trigger,
    )


def _hypercorn(application: str, trigger: Trigger) -> Configuration:
    return Configuration(
        name=_name("hypercorn", "", application),
        command=("hypercorn", application, "--bind", "127.0.0.1:0"),
        needs="hypercorn",
        trigger=trigger,
    )


def uwsgi(
    options: str = _DIE,
    *,
    workers: int = 1,
    is_representative: bool = False,
) -> Configuration:
    """Return uWSGI with a master and these options."""
    if workers > 1:
        options = f"--processes {workers} {options}"
    options = f"--master {options}"
    site = ("--module", _WSGI, "--virtualenv", "{prefix}")
    return Configuration(
        name=_name("uwsgi", options, _WSGI),
        command=("uwsgi", "--http-socket", "127.0.0.1:0", *site, *shlex.split(options)),
        needs="uwsgi",
        workers=workers,
        trigger="threading",
        cuts_requests_short=_DIE in options,
        is_representative=is_representative,
    )


def _runserver(
    options: str,
    trigger: Trigger | None,
    why_lost: str = "",
    *,
    is_representative: bool,
) -> Configuration:
    command = ("tests.servers.ward.manage", "runserver", "127.0.0.1:{port}")
    return Configuration(
        name=_name("manage.py runserver", options, _WSGI),
        command=(*command, *options.split()),
        port="chosen",
        needs="django",
        trigger=trigger,
        why_lost=why_lost,
        drains_briefly=True,
        is_representative=is_representative,
    )


def celery(
    options: str = "", *, workers: int = 2, is_representative: bool = False
) -> Configuration:
    """Return a Celery worker of processes."""
    options = f"--pool prefork --concurrency {workers} {options}".strip()
    application = ("--app", "tests.servers.ward.tasks")
    return Configuration(
        name=_name("celery worker", options, _WSGI),
        command=("celery", *application, "worker", "-l", "INFO", *options.split()),
        needs="celery",
        workers=workers,
        trigger="celery",
        speaks="celery",
        is_representative=is_representative,
    )


RELOADED: Final = _runserver(
    "",
    None,
    "the process that watches the files kills the one that serves",
    is_representative=False,
)
"""A developer's server, which is started anew where a file changes."""

MATRIX: Final = (
    gunicorn(is_representative=True),
    gunicorn(workers=3),
    gunicorn("--preload", workers=3),
    gunicorn(_THREADS),
    gunicorn(f"{_THREADS} --preload"),
    gunicorn(_THREADS, workers=3),
    gunicorn(f"{_THREADS} --preload", workers=3, is_representative=True),
    gunicorn(_GEVENT, workers=2),
    gunicorn(_UVICORN, workers=2, application=_ASGI, trigger="sigterm"),
    gunicorn(_UVICORN, application=_LIFESPAN, trigger="lifespan"),
    gunicorn(_UVICORN, workers=3, application=_LIFESPAN, trigger="lifespan"),
    gunicorn(
        f"{_UVICORN} --preload", workers=3, application=_LIFESPAN, trigger="lifespan"
    ),
    uvicorn(is_representative=True),
    uvicorn(workers=2),
    uvicorn(application=_ASGI, trigger="sigterm"),
    uvicorn(
        workers=2,
        application=_ASGI,
        trigger=None,
        why_lost="its workers put SIGTERM back to what kills, and raise it again: "
        "wrap the application in Lifespan",
    ),
    _granian("--interface wsgi", _WSGI, "threading"),
    _granian("--interface wsgi --workers 2", _WSGI, "threading", workers=2),
    _granian("--interface asgi", _LIFESPAN, "lifespan"),
    _granian("--interface asgi", _ASGI, "threading"),
    _granian("--interface asginl", _ASGI, "threading"),
    _hypercorn(_LIFESPAN, "lifespan"),
    _hypercorn(_ASGI, "threading"),
    Configuration(
        name="daphne",
        command=("daphne", _ASGI, "--bind", "127.0.0.1", "--port", "0"),
        needs="daphne",
        trigger="threading",
    ),
    uwsgi(),
    uwsgi(f"{_DIE} --enable-threads", workers=2),
    uwsgi(f"{_DIE} --enable-threads --lazy-apps"),
    uwsgi(f"{_DIE} --enable-threads --py-call-uwsgi-fork-hooks"),
    uwsgi(_FINISH, is_representative=True),
    uwsgi(f"{_FINISH} --enable-threads", workers=2),
    _runserver("--noreload", "sigterm", is_representative=True),
    RELOADED,
    celery(is_representative=True),
)

RECYCLED: Final = (
    gunicorn("--max-requests 4"),
    gunicorn(f"{_THREADS} --max-requests 4"),
    gunicorn(f"{_UVICORN} --max-requests 4", application=_LIFESPAN, trigger="lifespan"),
    uvicorn("--limit-max-requests 4", workers=2),
    # It keeps a worker for ten seconds unless told otherwise.
    uwsgi(f"{_DIE} --max-requests 4 --min-worker-lifetime 1"),
    celery("--max-tasks-per-child 4"),
)
"""Servers that replace a worker after a few requests."""

FORKED: Final = (
    gunicorn("--preload", workers=3),
    gunicorn(f"{_THREADS} --preload"),
    gunicorn(f"{_UVICORN} --preload", application=_ASGI, trigger="sigterm"),
    uwsgi(f"{_DIE} --enable-threads --py-call-uwsgi-fork-hooks", workers=2),
)
"""Servers that load the site and fork after that."""

FINISHING: Final = (
    gunicorn(),
    gunicorn(_THREADS),
    gunicorn(_UVICORN, application=_LIFESPAN, trigger="lifespan"),
    uvicorn(),
    uvicorn(application=_ASGI, trigger="sigterm"),
    _granian("--interface wsgi", _WSGI, "threading"),
    _granian("--interface asgi", _LIFESPAN, "lifespan"),
    _hypercorn(_LIFESPAN, "lifespan"),
    uwsgi(_FINISH),
)
"""Servers that finish the requests that are under way at a signal."""
