"""Django signals to events: emit_model_events() and emit_on_signal()."""

from __future__ import annotations

from .receivers import emit_model_events, emit_on_signal, events_of_models

__all__ = ["emit_model_events", "emit_on_signal", "events_of_models"]
