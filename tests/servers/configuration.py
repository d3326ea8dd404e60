"""One row of the matrix: how a server is started, and what its end should be."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Trigger = Literal["lifespan", "sigterm", "celery", "threading", "atexit"]

BINARIES: Final = Path(sys.executable).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A server as somebody would run it."""

    name: str
    command: tuple[str, ...]
    """A module, or uwsgi, and its options; {port} is a free one, {prefix} the venv."""
    needs: str
    """The module without which this row cannot run, or uwsgi."""
    trigger: Trigger | None
    """Which trigger of the coordinator drains; None: none can."""
    why_lost: str = ""
    workers: int = 1
    """How many processes answer."""
    speaks: Literal["http", "celery"] = "http"
    port: Literal["any", "chosen"] = "any"
    """Any: the server takes port 0, and tells which it got."""
    drains_briefly: bool = False
    """Whether a drain ends after a second where the settings do not say."""
    cuts_requests_short: bool = False
    """Whether a signal ends a worker inside a request, which then runs no hook."""
    environ: Mapping[str, str] = field(default_factory=dict)
    is_representative: bool = False
    """Whether this row is run by ``make test``."""

    @property
    def has_one_page(self) -> bool:
        """Whether one worker's metrics page shows the numbers of the whole site."""
        return self.speaks == "http" and self.workers == 1

    @property
    def is_long(self) -> bool:
        """Whether the server needs many seconds to end."""
        return self.speaks == "celery"

    def why_not_here(self) -> str | None:
        """Return what this machine lacks for it, and what to do; None if nothing."""
        if sys.platform != "linux":
            return "processes are looked at in /proc: use Linux"
        if self.needs == "uwsgi":
            is_here = os.access(BINARIES / "uwsgi", os.X_OK)
            return None if is_here else "pip install -r requirements/servers.txt"
        is_here = importlib.util.find_spec(self.needs) is not None
        return None if is_here else "pip install -r requirements/test.txt"
