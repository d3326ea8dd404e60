"""The board of the servers of brokers: what waits there, and who works on it."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import board, links, variables
from dashboards import thresholds as at
from dashboards.board import Row
from dashboards.panels import THIRD, About, Panel, Query, Word, graph, states
from dashboards.promql import BROKER, CONSUMER, PROCESS, quantile, rate

OPERATIONS: Final = "gomq_backend_operation_seconds"


def make() -> Dashboard:
    """Return the board."""
    chosen = [
        variables.datasource(),
        variables.job(),
        variables.instance(),
        variables.broker(),
        variables.consumer(),
    ]
    rows = [
        Row("What waits at the server", _waiting()),
        Row("The way there and from there", _ways()),
        Row("Workers", _workers()),
        Row("The server itself", _server()),
    ]
    return board.make(
        links.SERVERS,
        "django-gomq / Servers",
        "What waits at the servers of brokers, and who works on it; nothing where all "
        "is in memory.",
        chosen,
        rows,
        where=PROCESS,
    )


def _most(metric: str, *, unit_of: str = CONSUMER, by: str = "consumer") -> Query:
    """Return what all processes see alike: the greatest, not the sum."""
    return Query(f"max by ({by}) ({metric}{{{unit_of}}})", f"{{{{{by}}}}}")


def _waiting() -> list[Panel]:
    return [
        graph(
            "Waiting at the server",
            About(
                "Messages that are due, by consumer, those in the outbox among them; "
                "counted up to a bound, and every 15 seconds.",
                "A line that grows and does not come back.",
                "Start more workers, or see on the consumer's board what its handlers "
                "wait for.",
            ),
            _most("gomq_server_depth"),
            unit="short",
        ),
        graph(
            "Oldest message at the server",
            About(
                "For how long the oldest message that is due has waited, by consumer.",
                "Above the line: workers do not keep up, or there is none.",
                "Runbooks GomqBacklogTooOld and GomqConsumerWithoutWorker.",
            ),
            _most("gomq_server_oldest_age_seconds"),
            unit=units.Seconds,
            limit=at.BACKLOG_AGE,
        ),
        graph(
            "Held by processes",
            About(
                "Messages that the server has handed out and nobody has settled, by "
                "consumer: in channels and handlers of all processes.",
                "A line that stays where it is while no handler runs.",
                "Runbook GomqPendingStuck.",
            ),
            _most("gomq_server_pending"),
            unit="short",
        ),
        graph(
            "Scheduled at the server",
            About(
                "Messages with a delay, and those that wait for another attempt.",
                "A line that grows while few events have a delay: they fail.",
                "Find the exceptions on the consumer's board.",
            ),
            _most("gomq_server_scheduled"),
            unit="short",
        ),
        graph(
            "Dead letters at the server",
            About(
                "What consumers gave up on, and nobody has replayed or discarded.",
                "A line that grows, or never falls.",
                "manage.py gomq dead-letters list; runbook GomqDeadLetters.",
            ),
            _most("gomq_server_dead_letters"),
            unit="short",
        ),
        graph(
            "Deleted before they were read",
            About(
                "Messages that waited in a stream and that somebody has deleted there, "
                "by consumer; only servers that others may trim, such as Redis, say.",
                "Anything above zero: they are lost for that consumer.",
                "Runbook GomqMessagesTrimmed.",
            ),
            _most("gomq_server_trimmed"),
            unit="short",
        ),
    ]


def _ways() -> list[Panel]:
    return [
        graph(
            "Outbox",
            About(
                "Events that were emitted and that no consumer has been given yet.",
                "A line that is not near zero: no worker takes anything.",
                "Runbook GomqOutboxStalled.",
            ),
            _most("gomq_outbox_depth", unit_of=BROKER, by="broker"),
            unit="short",
            width=THIRD,
        ),
        graph(
            "Oldest event in the outbox",
            About(
                "How long ago it was emitted, by broker.",
                "Above the line for more than moments.",
                "Runbook GomqOutboxStalled, or GomqRelayLagging where a server is "
                "forwarded to; where workers fetch, they are too few.",
            ),
            _most("gomq_outbox_oldest_age_seconds", unit_of=BROKER, by="broker"),
            unit=units.Seconds,
            width=THIRD,
            limit=at.OUTBOX_AGE,
        ),
        graph(
            "Refused from the outbox",
            About(
                "Dead letters of events that a server will never take, by broker.",
                "Any: nobody handles these.",
                "Runbook GomqOutboxRefused.",
            ),
            _most("gomq_outbox_refused", unit_of=BROKER, by="broker"),
            unit="short",
            width=THIRD,
        ),
        states(
            "Relays",
            About(
                "Whether some process forwards what stands in an outbox to its server.",
                "nobody: events wait in the database.",
                "Runbook GomqRelayLagging.",
            ),
            Query(
                f"max by (job, broker) (gomq_relay_up{{{BROKER}}})",
                "{{job}} {{broker}}",
            ),
            {0: Word("nobody", "red"), 1: Word("forwards", "green")},
        ),
        states(
            "Servers",
            About(
                "Whether the server of each broker answered when it was asked last, in "
                "the process where it is worst.",
                "away: what is emitted there is refused, and nothing is fetched.",
                "Runbook GomqBackendDown.",
            ),
            Query(
                f"min by (job, broker) (gomq_backend_up{{{BROKER}}})",
                "{{job}} {{broker}}",
            ),
            {0: Word("away", "red"), 1: Word("up", "green")},
        ),
        graph(
            "Fetched",
            About(
                "Messages a second that servers handed to processes, by consumer.",
                "Nothing, while messages wait.",
                "See the workers below, and whether the consumer is paused.",
            ),
            Query(
                rate("gomq_messages_fetched_total", CONSUMER, "consumer"),
                "{{consumer}}",
            ),
            unit="mps",
            width=THIRD,
        ),
        graph(
            "Handed back",
            About(
                "Messages a second that were fetched and go on at the server: for "
                "another attempt, unstarted at a stop, or as others took them over.",
                "As much as is fetched: work goes round in circles.",
                "Compare with retries and exceptions on the consumer's board.",
            ),
            Query(
                rate("gomq_messages_handed_back_total", CONSUMER, "consumer"),
                "{{consumer}}",
            ),
            unit="mps",
            width=THIRD,
        ),
        graph(
            "Lost leases",
            About(
                "Messages a second that were handled after they had been given to "
                "others, so that they are handled twice.",
                "Anything above zero: a process stands still for longer than a lease.",
                "See what stops it (memory, a debugger, a machine that sleeps), or "
                "make `lease` longer.",
            ),
            Query(rate("gomq_leases_lost_total", CONSUMER, "consumer"), "{{consumer}}"),
            unit="mps",
            width=THIRD,
        ),
    ]


def _workers() -> list[Panel]:
    return [
        graph(
            "Workers of each consumer",
            About(
                "Living processes that run it, on any machine.",
                "Zero.",
                "Runbook GomqConsumerWithoutWorker.",
            ),
            _most("gomq_server_workers"),
            unit="short",
            width=THIRD,
        ),
        graph(
            "Processes that fetch",
            About(
                "Those that beat at the server of each broker.",
                "Fewer than were deployed.",
                "manage.py gomq doctor says which ones are late.",
            ),
            _most("gomq_server_processes", unit_of=BROKER, by="broker"),
            unit="short",
            width=THIRD,
        ),
        graph(
            "Workers that died",
            About(
                "Processes that ended without a word, by broker, as others found.",
                "Anything above zero.",
                "Runbook GomqWorkerDied; the log has their last words.",
            ),
            Query(
                "sum by (broker) (increase("
                f"gomq_server_processes_died_total{{{BROKER}}}[$__rate_interval]))",
                "{{broker}}",
            ),
            unit="short",
            width=THIRD,
        ),
    ]


def _server() -> list[Panel]:
    return [
        graph(
            "Time of an operation (95 of 100)",
            About(
                "How long the server took for what processes asked of it, or until "
                "that failed: publish, fetch, settle, and extend where there are "
                "leases.",
                "A line that rises: the server, its disk or the network is slow. "
                "Requests wait as long as a publish takes.",
                "Look at the server; in a request, emit less, or by `emit_many`.",
            ),
            Query(
                quantile(0.95, OPERATIONS, BROKER, "broker, operation"),
                "{{broker}} {{operation}}",
            ),
            unit=units.Seconds,
            width=THIRD,
        ),
        graph(
            "Operations",
            About(
                "How many a second, of all processes. One of them has many messages.",
                "Many more than messages: batches are small, or work goes in circles.",
                "Compare with what is fetched and handed back above.",
            ),
            Query(
                rate(f"{OPERATIONS}_count", BROKER, "broker, operation"),
                "{{broker}} {{operation}}",
            ),
            unit="ops",
            width=THIRD,
        ),
        graph(
            "Reconnects",
            About(
                "How often the server answered a process again after it had not, by "
                "broker.",
                "More than its restarts: the network cuts connections.",
                "The ERROR line of the first failure in the log, logger gomq.bus; "
                "runbook GomqBackendDown.",
            ),
            Query(
                "sum by (broker) (increase("
                f"gomq_backend_reconnects_total{{{BROKER}}}[$__rate_interval]))",
                "{{broker}}",
            ),
            unit="short",
            width=THIRD,
        ),
    ]
