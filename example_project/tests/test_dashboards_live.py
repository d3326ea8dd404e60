"""Every query of every board and rule has an answer while the clinic is under load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards import reading
from dashboards.reading import Asked
from tests.answers import ask_until, fill, is_for_a_database, wait_for
from tests.observed_clinic import (
    LOSS_WINDOW,
    PATIENCE,
    Observed,
    need_programs,
    observe,
)

BOARDS = reading.boards()
PANELS = Path(__file__).parents[2] / "build" / "tests" / "panels.md"


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """A clinic that has just dropped messages, still under load."""
    need_programs()
    with pytest.MonkeyPatch.context() as patch:
        # Spans end in the server's log; what counts is that exemplars name them.
        patch.setenv("CLINIC_TRACES", "console")
        with observe(tmp_path_factory.mktemp("dashboards")) as seen:
            yield seen


def test_every_query_of_every_panel_has_an_answer(observed: Observed) -> None:
    prometheus = observed.prometheus
    asked = [query for board in BOARDS for query in reading.queries(board)]
    others = [query for query in asked if not is_for_a_database(query.expr)]

    answers = ask_until(
        PATIENCE,
        [query for query in asked if query not in others],
        lambda query: prometheus.numbers(query.expr),
    )
    answers |= {query: prometheus.numbers(query.expr) for query in others}

    write_down({query: answers[query] for query in asked}, observed)
    missing = [query for query in asked if not answers[query]]
    assert missing == others


def test_every_choice_on_a_board_has_values(observed: Observed) -> None:
    for board in BOARDS:
        for name, variable in reading.variables(board).items():
            if name != "datasource":
                series, label = split(variable["definition"])
                found = observed.prometheus.values(label, series)

                assert found, (board["title"], name)


def test_restarts_and_firing_alerts_are_marked(observed: Observed) -> None:
    marks = {
        (board["title"], name): expr
        for board in BOARDS
        for name, expr in reading.marks(board).items()
    }

    found = ask_until(
        PATIENCE, marks, lambda mark: observed.prometheus.numbers(marks[mark])
    )

    assert [mark for mark, answer in found.items() if not answer] == []


def test_latency_panels_have_exemplars_that_name_a_trace(observed: Observed) -> None:
    asked = [query for board in BOARDS for query in reading.queries(board)]
    with_exemplars = [query for query in asked if query.has_exemplars]

    for query in with_exemplars:
        found = observed.prometheus.exemplars(query.expr)

        assert all(re.fullmatch("[0-9a-f]{32}", one["trace_id"]) for one in found)
        assert found, query


def test_every_rule_is_evaluated_without_an_error(observed: Observed) -> None:
    rules = observed.prometheus.rules()

    assert {
        rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"
    } == {}
    assert len(rules) > 30


def test_every_recording_has_series(observed: Observed) -> None:
    recordings = [
        one for one in observed.prometheus.rules() if one["type"] == "recording"
    ]

    found = ask_until(
        PATIENCE, [rule["name"] for rule in recordings], observed.prometheus.numbers
    )

    assert [name for name, answer in found.items() if not answer] == []


def test_both_sides_of_every_alert_have_series_that_match(observed: Observed) -> None:
    prometheus = observed.prometheus
    alerts = {
        rule["name"]: rule["query"]
        for rule in prometheus.rules()
        if rule["type"] == "alerting"
    }
    others = [name for name, query in alerts.items() if not is_for_a_database(query)]

    found = ask_until(
        PATIENCE,
        [name for name in alerts if name not in others],
        lambda name: prometheus.ask(unconditional(alerts[name])),
    )
    found |= {name: prometheus.ask(unconditional(alerts[name])) for name in others}

    assert [name for name in alerts if not found[name]] == others


def test_a_drop_on_purpose_reaches_the_webhook_with_directions(
    observed: Observed,
) -> None:
    at, notice = observed.arrived("firing")[0]

    assert notice.labels["consumer"] == "laboratory.analysis"
    assert notice.labels["reason"] == "channel_full"
    assert notice.labels["severity"] == "critical"
    assert notice.annotations["summary"] == (
        "laboratory.analysis missed messages: channel_full"
    )
    assert notice.annotations["dashboard_url"] == (
        "http://localhost:3000/d/gomq-consumer?var-job=clinic&var-broker=default"
        "&var-consumer=laboratory.analysis"
    )
    assert at >= observed.dropped_at


def test_the_alert_of_a_drop_is_resolved_when_it_is_old_news(
    observed: Observed,
) -> None:
    wait_for(
        LOSS_WINDOW + PATIENCE, lambda: observed.arrived("resolved"), "the resolution"
    )


def unconditional(expr: str) -> str:
    """Make an alert's expression answer whether or not something is wrong.

    Comparisons answer 0 or 1, what excludes has to match instead, and what was some
    time ago is what is now. A line through a range has its points in each second of it.
    """
    expr = re.sub(r"\boffset \w+", "", expr)
    expr = expr.replace(":1m]", ":1s]")
    expr = re.sub(r"(?<=\s)(==|!=|<=|>=|<|>)(?=\s)", r"\1 bool", expr)
    expr = re.sub(r"\bunless\b", "and", expr)
    return expr.replace("absent(", "count(")


def split(definition: str) -> tuple[str, str]:
    """Return series and label of `label_values(series, label)`."""
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", definition)
    assert found
    return fill(found[1]), found[2]


def write_down(answers: dict[Asked, list[float]], observed: Observed) -> None:
    """Write a table of every query and its values, for people."""
    seconds = observed.arrived("firing")[0][0] - observed.dropped_at
    lines = [f"From the drop to the webhook: {seconds:.1f} s", ""]
    lines += ["| board | panel | query | series | values |", "|---|---|---|---|---|"]
    for query, found in answers.items():
        some = ", ".join(f"{value:.4g}" for value in found[:5])
        place = f"{query.board} | {query.panel} | {query.name or '-'}"
        lines.append(f"| {place} | {len(found)} | {some} |")
    PANELS.parent.mkdir(parents=True, exist_ok=True)
    PANELS.write_text("\n".join(lines) + "\n")
