"""What command lines and settings tell of the server; it looks at no process."""

from __future__ import annotations

import argparse
import ast
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Final, NoReturn

import msgspec

GUNICORN_CONFIG: Final = "gunicorn.conf.py"
"""What gunicorn reads from the working directory if it is not told otherwise."""
GUNICORN_GRACE: Final = 30.0  # its default graceful_timeout, in seconds
_SERVERS: Final = frozenset({"uvicorn", "granian", "hypercorn"})


class Deployment(msgspec.Struct, frozen=True):
    """What is known of the server that runs, or will run, this site."""

    workers: int | None = None
    """Worker processes."""
    graceful_timeout: float | None = None
    """Seconds after which gunicorn kills a worker that was asked to end."""


def read_gunicorn(
    config: str | None, environ: Mapping[str, str], arguments: Sequence[str] = ()
) -> Deployment:
    """Return what gunicorn's settings say; little where nothing names gunicorn.

    ``config`` is the text of its file, which is not run: only values written out as
    such are seen. ``arguments`` are those of its command line, if it runs.
    """
    variable = environ.get("GUNICORN_CMD_ARGS")
    workers = _number(environ.get("WEB_CONCURRENCY"))
    if config is None and variable is None and not arguments:
        return Deployment(workers=workers)
    given = {"workers": workers, "graceful_timeout": GUNICORN_GRACE}
    given |= dict(_assigned(config or ""))
    given |= _parse(shlex.split(variable or ""))
    given |= _parse(arguments)
    return Deployment(_number(given["workers"]), _seconds(given["graceful_timeout"]))


def read_command(
    argv: Sequence[str], environ: Mapping[str, str], config: str | None
) -> Deployment:
    """Return what the command line of a running server says, and its environment.

    ``config`` is the text of gunicorn's file, if there is one.
    """
    name = PurePath(argv[0]).name if argv else ""
    if name == "__main__.py":  # python -m gunicorn
        name = PurePath(argv[0]).parent.name
    if name == "gunicorn":
        return read_gunicorn(config, environ, argv[1:])
    if name not in _SERVERS:
        return Deployment()
    workers = environ.get("GRANIAN_WORKERS" if name == "granian" else "WEB_CONCURRENCY")
    return Deployment(_number(_parse(argv[1:]).get("workers", workers)))


def read_config(folder: Path) -> str | None:
    """Return the text of gunicorn's file in this folder; None if there is none."""
    try:
        return (folder / GUNICORN_CONFIG).read_text()
    except OSError:
        return None


def _assigned(source: str) -> Iterator[tuple[str, Any]]:
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return  # gunicorn will say so
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(
            statement.value, ast.Constant
        ):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target.id, statement.value.value


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would end the program."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    parser = _Parser(add_help=False, allow_abbrev=False)
    absent = argparse.SUPPRESS
    parser.add_argument("-w", "--workers", default=absent)
    parser.add_argument("--graceful-timeout", default=absent)
    try:
        return vars(parser.parse_known_args(arguments)[0])
    except ValueError:
        return {}  # an option without its value: the server will say so


def _number(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None


def _seconds(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
