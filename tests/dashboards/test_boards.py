"""The boards keep the rules of Grafana's dashboard-linter, and some of our own."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from dashboards import reading

BOARDS = {board["uid"]: board for board in reading.boards()}
QUERIES = [query for board in BOARDS.values() for query in reading.queries(board)]
SELECTOR = re.compile(r"(?P<metric>[a-z_][a-z0-9_:]*)?\{(?P<matchers>[^{}]*)\}")
# Of a fleet nobody can choose instances: that is what its series were recorded for.
WITHOUT_INSTANCE = {"django-gomq / Fleet"}
# Angular's panels (graph, singlestat, table-old) are gone from Grafana.
KINDS = {"heatmap", "stat", "state-timeline", "table", "timeseries"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"short", "percentunit", "s", "ops", "mps"}

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


@each_board
def test_a_board_cannot_be_edited_and_is_found_by_its_tag(
    board: dict[str, Any],
) -> None:
    assert board["editable"] is False
    assert board["tags"] == ["django-gomq"]


@each_board
def test_a_board_links_to_its_siblings_with_what_was_chosen(
    board: dict[str, Any],
) -> None:
    (link,) = board["links"]

    assert (link["type"], link["tags"]) == ("dashboards", ["django-gomq"])
    assert link["includeVars"]
    assert link["keepTime"]


@each_board
def test_a_board_lets_choose_the_data_source(board: dict[str, Any]) -> None:
    datasource = reading.variables(board)["datasource"]

    assert (datasource["type"], datasource["query"]) == ("datasource", "prometheus")
    assert datasource["label"] == "Data source"


@each_board
def test_choices_are_multiple_and_fresh_and_begin_with_everything(
    board: dict[str, Any],
) -> None:
    chosen = dict(reading.variables(board))
    del chosen["datasource"]

    assert next(iter(chosen)) == "job"
    assert ("instance" in chosen) is (board["title"] not in WITHOUT_INSTANCE)
    for name, variable in chosen.items():
        assert variable["label"] == name.capitalize()
        assert (variable["multi"], variable["allValue"]) == (True, ".+")
        assert variable["current"]["value"] == ["$__all"]
        assert variable["refresh"] == 2  # with the time range
        assert variable["datasource"] == DATASOURCE


@each_board
def test_a_board_marks_restarts_and_firing_alerts(board: dict[str, Any]) -> None:
    assert list(reading.marks(board)) == ["Restarts", "Firing alerts"]


@each_board
def test_ids_are_unique(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]

    assert len(set(ids)) == len(ids)


@each_board
def test_panels_stay_inside_the_grid_and_do_not_overlap(board: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        rows = range(place["y"], place["y"] + place["h"])
        cells = set(itertools.product(columns, rows))

        assert 0 <= place["x"] <= place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@each_board
def test_panels_beside_one_another_are_of_one_height_and_leave_no_hole(
    board: dict[str, Any],
) -> None:
    by_line = sorted(board["panels"], key=lambda panel: panel["gridPos"]["y"])

    for y, line in itertools.groupby(by_line, lambda panel: panel["gridPos"]["y"]):
        places = [panel["gridPos"] for panel in line]

        assert sum(place["w"] for place in places) == 24, y
        assert len({place["h"] for place in places}) == 1, y


@each_board
def test_the_title_of_a_number_fits_above_it(board: dict[str, Any]) -> None:
    for panel in reading.panels(board):
        if panel["type"] == "stat":
            assert len(panel["title"]) <= 4 * panel["gridPos"]["w"], panel["title"]


@each_board
def test_a_panel_says_what_it_shows_what_is_bad_and_what_to_do(
    board: dict[str, Any],
) -> None:
    wanted = r"[^*]{20,}\n\n\*\*Bad:\*\* [^*]+\n\n\*\*What to do:\*\* [^*]+"

    for panel in reading.panels(board):
        assert panel["title"]
        assert re.fullmatch(wanted, panel["description"]), panel["title"]


@each_board
def test_a_panel_is_of_a_kind_that_grafana_has_and_has_a_unit(
    board: dict[str, Any],
) -> None:
    for panel in reading.panels(board):
        assert panel["type"] in KINDS, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]


@each_board
def test_numbers_and_cells_without_a_value_are_not_green(board: dict[str, Any]) -> None:
    for panel in reading.panels(board):
        if panel["type"] in {"stat", "table"}:
            (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]

            assert mapping["options"]["match"] == "null+nan"
            assert mapping["options"]["result"]["text"] == "-"
            assert mapping["options"]["result"]["color"] in {"#808080", "transparent"}


def test_outcomes_have_the_same_colours_everywhere() -> None:
    by_outcome = [
        panel
        for board in BOARDS.values()
        for panel in reading.panels(board)
        if "{{outcome}}" in {one["legendFormat"] for one in panel["targets"]}
    ]

    assert len(by_outcome) == 3
    for panel in by_outcome:
        assert colours(panel) == {
            "success": "green",
            "error": "red",
            "timeout": "orange",
            "rejected": "purple",
        }


def colours(panel: dict[str, Any]) -> dict[str, str]:
    return {
        one["matcher"]["options"]: one["properties"][0]["value"]["fixedColor"]
        for one in panel["fieldConfig"]["overrides"]
    }


@each_board
def test_a_panel_asks_the_chosen_data_source(board: dict[str, Any]) -> None:
    for panel in reading.panels(board):
        asked = [panel["datasource"], *(one["datasource"] for one in panel["targets"])]

        assert asked == [DATASOURCE] * len(asked), panel["title"]
        assert len(asked) > 1, panel["title"]


@each_board
def test_queries_have_letters_and_lines_have_legends(board: dict[str, Any]) -> None:
    for panel in reading.panels(board):
        targets = panel["targets"]
        letters = [one["refId"] for one in targets]

        assert letters == list("ABCDEFGHIJ"[: len(targets)]), panel["title"]
        assert panel["type"] == "stat" or all(one["legendFormat"] for one in targets)


@each_board
def test_every_selector_keeps_what_was_chosen(board: dict[str, Any]) -> None:
    wanted = ['job=~"$job"']
    if board["title"] not in WITHOUT_INSTANCE:
        wanted.append('instance=~"$instance"')

    for query in reading.queries(board):
        selectors = SELECTOR.findall(query.expr)
        assert selectors
        for metric, matchers in selectors:
            assert all(one in matchers for one in wanted), (query, metric)


@each_board
def test_no_metric_is_asked_without_a_selector(board: dict[str, Any]) -> None:
    for query in reading.queries(board):
        bare = re.sub(r'"[^"]*"', '""', query.expr)
        found = re.findall(r"gomq[_:][a-z0-9_:]*(?![a-z0-9_:{])", bare)

        assert found == [], query


@each_board
def test_windows_follow_the_resolution_or_the_time_range(board: dict[str, Any]) -> None:
    for query in reading.queries(board):
        windows = set(re.findall(r"\[([^]]*)\]", query.expr))
        allowed = {"$__rate_interval"} | ({"$__range"} if query.is_instant else set())

        assert windows <= allowed, query


@each_board
def test_counters_are_only_read_as_rates(board: dict[str, Any]) -> None:
    for query in reading.queries(board):
        if query.panel == "Conservation gap":
            continue  # the law is about the counts themselves
        for found in re.finditer(r"\w+_(total|bucket|sum|count)\{[^}]*\}", query.expr):
            assert query.expr[found.end()] == "[", (query, found[0])


def test_latency_panels_show_exemplars() -> None:
    shown = {(one.board, one.panel) for one in QUERIES if one.has_exemplars}

    assert {panel for _, panel in shown} == {
        "Handler time",
        "Handler time, p99, p95 and p50",
    }


def test_a_row_of_the_table_leads_to_the_board_of_its_consumer() -> None:
    for uid in ("gomq-overview", "gomq-fleet"):
        (table,) = (
            panel
            for panel in reading.panels(BOARDS[uid])
            if panel["title"] == "Consumers"
        )
        links = [
            setting["value"][0]["url"]
            for override in table["fieldConfig"]["overrides"]
            for setting in override["properties"]
            if setting["id"] == "links"
        ]

        assert len(links) == 1
        assert links[0].startswith("/d/gomq-consumer?")
        assert "gomq-consumer" in BOARDS
        assert "var-consumer=${__data.fields.Consumer}" in links[0]
