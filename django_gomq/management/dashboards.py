"""``gomq dashboards``: writes the boards and rules out, with the user's own values.

It replaces text that the files themselves mark.
"""

from __future__ import annotations

import json
import re
import textwrap
from argparse import (
    ArgumentParser,
    ArgumentTypeError,
    RawDescriptionHelpFormatter,
)
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import msgspec
from django.core.management.base import CommandError

from django_gomq.management.subcommand import Write
from django_gomq.management.tables import WIDTH

HELP: Final = "Write boards for Grafana and rules for Prometheus to a folder."
USAGE_ERROR: Final = 2

_FOLDER: Final = resources.files("django_gomq") / "dashboards"
_OPTIONS: Final = "options.json"
# A line of a rule that has a threshold ends with a comment that names it.
_MARKED: Final = re.compile(r"(?P<code>.*)  # (?P<name>\w+)")


class Known(msgspec.Struct, frozen=True):
    """A threshold as the shipped files have it."""

    default: str
    unit: str
    help: str


class Defaults(msgspec.Struct, frozen=True):
    """What stands in the shipped files, and where on boards thresholds stand."""

    job: str
    dashboard_url: str
    runbook_url: str
    thresholds: dict[str, Known]
    places: dict[str, dict[str, str]]


DEFAULTS: Final = msgspec.json.decode((_FOLDER / _OPTIONS).read_bytes(), type=Defaults)


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """What to write instead of the defaults; None keeps a default."""

    job: str | None = None
    """A regular expression of Prometheus, for the whole name of a job."""
    datasource: str | None = None
    """The name or uid of a data source of Grafana."""
    dashboard_url: str | None = None
    runbook_url: str | None = None
    thresholds: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Numbers by name."""


def write_dashboards(out: Path, values: Values) -> list[Path]:
    """Write every board, rule and runbook below a folder; return what was written.

    Makes the folders, and writes over files of the same name. Without values the files
    are those that ship. Raises OSError.
    """
    written = []
    for path, file in sorted(_shipped(_FOLDER, "")):
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        text = _change(path, file.read_text(encoding="utf-8"), values)
        target.write_text(text, encoding="utf-8")
        written.append(target)
    return written


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where to write")
    add(
        "--job",
        type=_expression,
        metavar="REGEX",
        help="which jobs of Prometheus, as its =~ takes it",
    )
    add("--datasource", metavar="NAME", help="Grafana's data source, by name or uid")
    add("--dashboard-url", metavar="URL", help="where Grafana is, for links in alerts")
    add("--runbook-url", metavar="URL", help="where you publish the folder runbooks/")
    add(
        "--threshold",
        action="append",
        default=[],
        type=_threshold,
        metavar="NAME=VALUE",
        help="another number, by a name below; may be given several times",
    )
    # As a list: wrapped into one paragraph nobody would find a name in it.
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["thresholds:", *_explain()])


def run(options: Mapping[str, Any], write: Write) -> int:
    """Write the files and say which."""
    values = Values(
        job=options["job"],
        datasource=options["datasource"],
        dashboard_url=options["dashboard_url"],
        runbook_url=options["runbook_url"],
        thresholds=dict(options["threshold"]),
    )
    try:
        written = write_dashboards(options["out"], values)
    except OSError as error:
        raise CommandError(f"Cannot write: {error}", returncode=USAGE_ERROR) from error
    for path in written:
        write(str(path))
    return 0


def _shipped(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for file in folder.iterdir():
        if file.is_dir():
            yield from _shipped(file, f"{path}{file.name}/")
        elif file.name != _OPTIONS:
            yield f"{path}{file.name}", file


def _change(path: str, text: str, values: Values) -> str:
    if path.startswith("grafana/"):
        return _change_board(path, text, values)
    if path.startswith("prometheus/"):
        return _change_rules(text, values)
    return text


def _change_rules(text: str, values: Values) -> str:
    if values.job is not None:
        text = text.replace(DEFAULTS.job, _selector(values.job))
    for name in ("dashboard_url", "runbook_url"):
        address = getattr(values, name)
        if address is not None:
            before = f'{name}: "{getattr(DEFAULTS, name)}/'
            after = json.dumps(f"{address.rstrip('/')}/", ensure_ascii=False)
            text = text.replace(before, f"{name}: {after[:-1]}")
    lines = (_change_line(line, values.thresholds) for line in text.splitlines())
    return "\n".join(lines) + "\n"


def _change_line(line: str, thresholds: Mapping[str, str]) -> str:
    found = _MARKED.fullmatch(line)
    if found is None or found["name"] not in thresholds:
        return line
    default = re.escape(DEFAULTS.thresholds[found["name"]].default)
    number = thresholds[found["name"]]
    code = re.sub(rf"(?<![\w.]){default}(?![\d.])", number, found["code"])
    return f"{code}  # {found['name']}"


def _change_board(path: str, text: str, values: Values) -> str:
    board = json.loads(text)
    for place, name in DEFAULTS.places[path].items():
        if name in values.thresholds:
            _put(board, place, float(values.thresholds[name]))
    for variable in board["templating"]["list"]:
        _change_variable(variable, values)
    changed = json.dumps(board, indent=2, ensure_ascii=False)
    return changed + "\n"


def _change_variable(variable: dict[str, Any], values: Values) -> None:
    if variable["name"] == "datasource" and values.datasource is not None:
        chosen = {"text": values.datasource, "value": values.datasource}
        variable["current"] = chosen
    if variable["name"] == "job" and values.job is not None:
        selector = _selector(values.job)
        query = variable["definition"].replace(DEFAULTS.job, selector)
        variable["definition"] = variable["query"]["query"] = query
        variable["allValue"] = values.job


def _put(board: Any, place: str, value: float) -> None:
    *way, last = place.removeprefix("/").split("/")
    for step in way:
        board = board[int(step) if isinstance(board, list) else step]
    board[last] = value


def _selector(expression: str) -> str:
    escaped = expression.replace("\\", "\\\\").replace('"', '\\"')
    return f'job=~"{escaped}"'


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    if not text or "\n" in text:
        raise ArgumentTypeError("say which jobs, on one line")
    return text


def _threshold(text: str) -> tuple[str, str]:
    name, _, number = text.partition("=")
    known = DEFAULTS.thresholds.get(name)
    if known is None:
        names = ", ".join(DEFAULTS.thresholds)
        raise ArgumentTypeError(f"there is no threshold {name!r}; there are {names}")
    if not re.fullmatch(
        r"\d+" if known.unit.startswith("whole") else r"\d+(\.\d+)?", number
    ):
        raise ArgumentTypeError(f"{name} is in {known.unit}, not {number!r}")
    if known.unit == "ratio" and float(number) > 1:
        raise ArgumentTypeError(f"{name} is a ratio, from 0 to 1, not {number!r}")
    return name, number


def _explain() -> Iterator[str]:
    for name, item in DEFAULTS.thresholds.items():
        lines = textwrap.wrap(f"{item.help} ({item.unit})", WIDTH - _INDENT)
        yield f"  {f'{name}={item.default}':<22}  {lines[0]}"
        yield from (" " * _INDENT + line for line in lines[1:])


_INDENT: Final = 26
