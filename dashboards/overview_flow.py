"""Overview: what is emitted, handled and lost, a second."""

from __future__ import annotations

from dashboards.panels import About, Panel, Query, graph
from dashboards.promql import CONSUMER, EVENT, OUTCOMES, PAIR, rate

_DROPPED = "gomq_messages_dropped_total"
_REFUSED = "gomq_messages_refused_total"
_RUNBOOK = "The alert of the same matter has a runbook."


def flow() -> list[Panel]:
    """Return the panels."""
    return [
        graph(
            "Published",
            About(
                "Messages that brokers took, a second, by event type.",
                "A type that stops, or that jumps with no more visitors than before.",
                "Look for what emits it; a loop of handlers that emit to one another "
                "looks like a jump.",
            ),
            Query(rate("gomq_messages_published_total", EVENT, "event"), "{{event}}"),
            unit="mps",
            stacked=True,
        ),
        graph(
            "Attempts",
            About(
                "Attempts that handlers ended, a second, by what came of them.",
                "A part that is not success and does not go away.",
                "Filter by consumer, or open the consumer's board for the exceptions.",
            ),
            Query(
                rate("gomq_messages_processed_total", PAIR, "outcome"), "{{outcome}}"
            ),
            unit="ops",
            stacked=True,
            colours=OUTCOMES,
        ),
        graph(
            "Lost",
            About(
                "Drops by consumer and reason, refusals by event and reason, a second.",
                f"Anything above zero. {_RUNBOOK}",
                "channel_full, evicted: the consumer is too slow. queue_full: the "
                "whole type is held back. not_running, closed: no broker runs there.",
            ),
            Query(rate(_DROPPED, PAIR, "consumer, reason"), "{{consumer}} {{reason}}"),
            Query(rate(_REFUSED, EVENT, "event, reason"), "{{event}} {{reason}}"),
            unit="mps",
        ),
        graph(
            "Not handled",
            About(
                "Dead letters, events that nobody consumes, and events that went with "
                "a rollback, a second.",
                "Dead letters always. Unconsumed: a misspelt type, or an app that was "
                "removed. Rollbacks are what they should be, unless requests fail.",
                "Dead letters: the log has tracebacks. Unconsumed: manage.py check.",
            ),
            Query(
                rate("gomq_messages_dead_lettered_total", CONSUMER, "consumer"),
                "{{consumer}} dead-lettered",
            ),
            # A type with consumers has no series of those that nobody consumes.
            Query(
                f"{rate('gomq_messages_unconsumed_total', EVENT, 'event')} "
                f"or 0 * {rate('gomq_messages_published_total', EVENT, 'event')}",
                "{{event}} unconsumed",
            ),
            Query(
                rate("gomq_messages_rolled_back_total", EVENT, "event"),
                "{{event}} rolled back",
            ),
            unit="mps",
        ),
    ]
