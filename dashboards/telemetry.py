"""The board of the processes themselves, and of what it costs to watch them."""

from __future__ import annotations

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import board, links, variables
from dashboards import thresholds as at
from dashboards.board import Row
from dashboards.panels import (
    HALF,
    THIRD,
    About,
    Column,
    Panel,
    Query,
    Word,
    graph,
    listing,
    states,
)
from dashboards.promql import BROKER, PROCESS, rate


def make() -> Dashboard:
    """Return the board."""
    chosen = [
        variables.datasource(),
        variables.job(),
        variables.instance(),
        variables.broker(),
    ]
    rows = [
        Row("Processes", [*_processes(), *_threads()]),
        Row("What watching costs", _costs()),
    ]
    return board.make(
        links.TELEMETRY,
        "django-gomq / Telemetry",
        "Which processes run, and what it costs to watch them.",
        chosen,
        rows,
        where=PROCESS,
    )


def _processes() -> list[Panel]:
    up = f"time() - gomq_start_time_seconds{{{PROCESS}}}"
    versions = f"count by (job, version) (gomq_build_info{{{PROCESS}}})"
    backends = f"count by (job, broker, backend) (gomq_consumer_info{{{BROKER}}})"
    return [
        graph(
            "Processes",
            About(
                "Processes whose numbers are here, by job.",
                "Fewer than were deployed.",
                "Look at the targets in Prometheus; with PROMETHEUS_MULTIPROC_DIR, at "
                "whether all processes share the directory.",
            ),
            Query(f"sum by (job) (gomq_processes{{{PROCESS}}})", "{{job}}"),
            unit="short",
            width=THIRD,
        ),
        graph(
            "Killed processes",
            About(
                "Processes that ended without a stop, by job, as those that share "
                "PROMETHEUS_MULTIPROC_DIR with them found; without it nobody does.",
                "Anything above zero: what was queued in their memory is lost.",
                "Runbook GomqProcessesRestarting.",
            ),
            Query(
                f"sum by (job) (increase(gomq_processes_killed_total{{{PROCESS}}}"
                "[$__rate_interval]))",
                "{{job}}",
            ),
            unit="short",
            width=THIRD,
        ),
        graph(
            "Since the start",
            About(
                "How long the process (of several: the youngest) has counted.",
                "A saw with short teeth: it starts again and again; if it also falls "
                "back, several processes answer at one address.",
                "Runbooks GomqProcessesRestarting and GomqProcessesMixed.",
            ),
            Query(up, "{{instance}}"),
            unit=units.Seconds,
            width=THIRD,
        ),
        listing(
            "Versions",
            About(
                "Instances by the version of django-gomq that they run.",
                "Two versions for longer than a deployment takes.",
                "Finish the deployment.",
            ),
            [Query(versions, "Instances")],
            {"Job": Column(), "Version": Column(), "Instances": Column()},
            width=THIRD,
        ),
        listing(
            "Backends",
            About(
                "Consumers, counted in each instance, by the backend of their broker.",
                "A backend that should not be there: routes or settings differ.",
                "Compare GOMQ['BROKERS'] and GOMQ['ROUTES'] of the processes.",
            ),
            [Query(backends, "Consumers")],
            {
                "Job": Column(),
                "Broker": Column(),
                "Backend": Column(),
                "Consumers": Column(),
            },
            width=THIRD,
        ),
        states(
            "Dispatchers",
            About(
                "Whether the dispatcher of each broker runs where it was started; in "
                "the instance where it is worst.",
                "down: every emit there is refused.",
                "Runbook GomqDispatcherDown.",
            ),
            Query(
                f"min by (job, broker) (gomq_dispatcher_up{{{BROKER}}})",
                "{{job}} {{broker}}",
            ),
            {0: Word("down", "red"), 1: Word("up", "green")},
            width=THIRD,
        ),
    ]


def _threads() -> list[Panel]:
    busy = f"sum by (instance) (gomq_threads_busy{{{PROCESS}}})"
    return [
        graph(
            "Handler threads",
            About(
                "Handler threads that run, and those at work, by instance. Without an "
                "emit there are none yet.",
                "At work equal to running for long: the pool is the limit.",
                "Raise THREADS, or find the slow consumer on the overview.",
            ),
            Query(f"sum by (instance) (gomq_threads{{{PROCESS}}})", "{{instance}} run"),
            Query(busy, "{{instance}} at work"),
            unit="short",
        ),
        graph(
            "Busiest process",
            About(
                "Which part of the handler threads is at work, in the process of each "
                "instance where it is most. A thread that was replaced does not count.",
                "100 % for long: in that process every consumer waits for a thread.",
                "Runbook GomqThreadsSaturated; which handler has the threads, Longest "
                "attempt in work on the overview says.",
            ),
            Query(
                f"max by (instance) (gomq_threads_busy_ratio{{{PROCESS}}})",
                "{{instance}}",
            ),
            unit=units.PercentUnit,
            limit=at.THREADS_BUSY,
        ),
        graph(
            "Missing threads",
            About(
                "Threads that should run in started processes and do not, by what they "
                "are for.",
                "Anything above zero for longer than a second or two: a thread that "
                "dies is replaced at once.",
                "Runbook GomqHandlerThreadsDown.",
            ),
            Query(
                f"sum by (thread) (gomq_threads_missing{{{PROCESS}}})",
                "{{thread}}",
            ),
            unit="short",
        ),
        graph(
            "Event loop blocked",
            About(
                "For how long an async handler has not given the event loop back, at "
                "the moment of the scrape.",
                "Above the line: no other async handler of that process goes on.",
                "The log names the handler and where it stands; call blocking code "
                "with sync_to_async.",
            ),
            Query(
                f"max by (instance) (gomq_loop_lag_seconds{{{PROCESS}}})",
                "{{instance}}",
            ),
            unit=units.Seconds,
            limit=at.LOOP_LAG,
        ),
    ]


def _costs() -> list[Panel]:
    everything = f'{{__name__=~"gomq_.+", {PROCESS}}}'
    return [
        graph(
            "Scrape time",
            About(
                "How long a scrape of each instance took, all its metrics included.",
                "A tenth of the scrape interval, or a line that grows for days.",
                "See the series beside this; with PROMETHEUS_MULTIPROC_DIR, whether "
                "files of dead processes pile up.",
            ),
            Query(f"scrape_duration_seconds{{{PROCESS}}}", "{{instance}}"),
            unit=units.Seconds,
            width=THIRD,
        ),
        graph(
            "Series",
            About(
                "Series of django-gomq by instance, and samples of the whole scrape.",
                "A number that grows: classes of errors, or event types where "
                "`UNDECLARED_EVENTS` allows them, are made up at run time.",
                "It ends at 20 classes of each consumer, and at so many types.",
            ),
            Query(f"count by (instance) ({everything})", "{{instance}} django-gomq"),
            Query(f"scrape_samples_scraped{{{PROCESS}}}", "{{instance}} all"),
            unit="short",
            width=THIRD,
        ),
        graph(
            "Reached by Prometheus",
            About(
                "1 while Prometheus can scrape an instance.",
                "0, or a line that ends: its alerts are silent.",
                "Look at the target's error in Prometheus.",
            ),
            Query(f"up{{{PROCESS}}}", "{{instance}}"),
            unit="short",
            width=THIRD,
        ),
        listing(
            "Series by metric",
            About(
                "Which metrics have most series, over all chosen instances.",
                "One that is far ahead of the others.",
                "Histograms grow with consumers, counters with pairs of event and "
                "consumer: one that takes every type has as many as there are types.",
            ),
            [Query(f"topk(15, count by (__name__) ({everything}))", "Series")],
            {"Metric": Column(label="__name__"), "Series": Column()},
            width=HALF,
        ),
        graph(
            "Errors of the observers",
            About(
                "What metrics, spans and log hooks themselves failed at, a second.",
                "Anything above zero: boards and alerts may be incomplete.",
                "Runbook GomqTelemetryErrors; the log has the first traceback.",
            ),
            Query(
                rate("gomq_telemetry_errors_total", PROCESS, "instance, kind"),
                "{{instance}} {{kind}}",
            ),
            unit="ops",
        ),
    ]
