"""A panel for django-debug-toolbar: what a request emitted, and what became of it.

For ``DEBUG_TOOLBAR_PANELS``; nothing else imports it.
"""

from __future__ import annotations

from .panel import EventsPanel
from .seen import OutcomeHook

__all__ = ["EventsPanel", "OutcomeHook"]
