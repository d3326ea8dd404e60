"""``gomq list``: who emits, who listens, and over which broker."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from django.conf import settings
from django.core.management.base import CommandError
from django.urls import get_resolver

from django_gomq.bus.errors import describe_error
from django_gomq.checks.recorded import find_leftovers
from django_gomq.discovery import skipped
from django_gomq.listing.collect import gather
from django_gomq.listing.emitters import project_files
from django_gomq.listing.overview import Overview, WarningRow
from django_gomq.management.subcommand import Write
from django_gomq.management.tables import Screen
from django_gomq.site import Site, brokers

from .render import as_json, as_mermaid, as_table

__all__ = ["HELP", "add_arguments", "run"]

HELP: Final = "Show who emits and who listens: events, consumers, brokers."

_FORMATS: Final = ("table", "json", "mermaid")


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
        reason = "django_gomq is not set up: let django.setup() run first."
        raise CommandError(str(brokers.failure or reason))
    _load_views()
    overview = gather(site, project_files(), skipped)
    warnings = [*overview.warnings, *_left_at_servers(site)]
    overview = msgspec.structs.replace(overview, warnings=warnings)
    write(_written(overview, options["format"], options["screen"]))
    return int(options["strict"] and len(overview.warnings) > 0)


def _left_at_servers(site: Site) -> Iterator[WarningRow]:
    """Yield a warning for each consumer that only a server knows."""
    for alias, broker in sorted(site.brokers.items()):
        try:
            for left in find_leftovers(site, broker):
                yield WarningRow(kind="not_in_code", subject=left.name, text=f"{left}.")
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            text = f"The server of broker {alias!r} cannot be asked which consumers it "
            text += f"knows: {describe_error(error)}."
            yield WarningRow(kind="unasked", subject=alias, text=text)


def _written(overview: Overview, form: str, screen: Screen) -> str:
    if form == "table":
        return as_table(overview, screen)
    return as_json(overview) if form == "json" else as_mermaid(overview)


def _load_views() -> None:
    """Import what a server imports for its first request, and so what views emit."""
    if getattr(settings, "ROOT_URLCONF", ""):
        _ = get_resolver().url_patterns
