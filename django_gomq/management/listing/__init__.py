"""``gomq list``: who emits, who listens, and over which broker."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any, Final

from django.conf import settings
from django.core.management.base import CommandError
from django.urls import get_resolver

from django_gomq.management.subcommand import Write
from django_gomq.site import brokers

from .collect import gather
from .emitters import project_files
from .overview import Overview
from .render import as_json, as_mermaid, as_table

__all__ = ["HELP", "add_arguments", "run"]

HELP: Final = "Show who emits and who listens: events, consumers, brokers, routes."

_FORMATS: Final[Mapping[str, Callable[[Overview], str]]] = {
    "table": as_table,
    "json": as_json,
    "mermaid": as_mermaid,
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of ``list``."""
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        default="table",
        help="table (default), json, or mermaid: a flowchart for Markdown",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 if there are warnings",
    )


def run(options: Mapping[str, Any], write: Write) -> int:
    """Write the overview; return 1 for warnings where they are to be strict."""
    site = brokers.site
    if site is None:
        raise CommandError("django_gomq is not set up: let django.setup() run first.")
    _load_views()
    overview = gather(site, project_files())
    write(_FORMATS[options["format"]](overview))
    return int(options["strict"] and len(overview.warnings) > 0)


def _load_views() -> None:
    """Import what a server imports for its first request, and so what views emit."""
    if getattr(settings, "ROOT_URLCONF", ""):
        _ = get_resolver().url_patterns
