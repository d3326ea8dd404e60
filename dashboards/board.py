"""Puts panels, variables, links and annotations together to a board."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard

from dashboards.panels import FULL, Panel, ref_id
from dashboards.variables import DATASOURCE

TAG: Final = "django-gomq"


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, from left to right."""

    title: str
    panels: Sequence[Panel]


def make(
    uid: str,
    title: str,
    text: str,
    variables: Sequence[Builder[dashboard.VariableModel]],
    rows: Sequence[Row],
    *,
    where: str,
) -> dashboard.Dashboard:
    """Return a board; ``where`` says whose restarts it marks."""
    made = Dashboard(title).uid(uid).description(text).tags([TAG]).readonly()
    made.timezone("browser").time("now-1h", "now").refresh("30s")
    made.tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    made.variables(list(variables)).annotations(_annotations(where)).link(_siblings())
    board = made.build()
    board.panels = list(_placed(rows))
    return board


def _siblings() -> DashboardLink:
    link = DashboardLink("django-gomq").tags([TAG]).as_dropdown(True)
    link.type(dashboard.DashboardLinkType.DASHBOARDS)
    return link.include_vars(True).keep_time(True)


def _annotations(where: str) -> list[Builder[dashboard.AnnotationQuery]]:
    restarts = _annotation(
        "Restarts", f"gomq_start_time_seconds{{{where}}} * 1000", "blue"
    ).use_value_for_time(True)
    restarts.title_format("{{job}} started").text_format("{{instance}}")
    firing = 'ALERTS{alertname=~"Gomq.+", alertstate="firing", job=~"$job"}'
    alerts = _annotation("Firing alerts", firing, "red").tag_keys("severity")
    alerts.title_format("{{alertname}}").text_format("{{consumer}} {{event}} {{job}}")
    return [restarts, alerts]


def _annotation(name: str, expr: str, colour: str) -> AnnotationQuery:
    made = AnnotationQuery().name(name).datasource(DATASOURCE).enable(True)
    made.hide(False).icon_color(colour)
    return made.target(Dataquery().expr(expr).ref_id("Anno").range())


def _placed(rows: Sequence[Row]) -> Iterator[dashboard.Panel | dashboard.RowPanel]:
    number = y = 0
    for row in rows:
        number += 1
        place = dashboard.GridPos(h=1, w=FULL, x=0, y=y)
        yield dashboard.RowPanel(title=row.title, id_val=number, grid_pos=place)
        y += 1
        for line in _lines(row.panels):
            x = 0
            for panel in line:
                number += 1
                yield _finish(panel, number, x, y)
                x += _width(panel)
            y += max(map(_height, line))


def _lines(panels: Sequence[Panel]) -> Iterator[list[Panel]]:
    line: list[Panel] = []
    for panel in panels:
        if sum(map(_width, [*line, panel])) > FULL:
            yield line
            line = []
        line.append(panel)
    yield line


def _finish(panel: Panel, number: int, x: int, y: int) -> Panel:
    # The SDK gives neither ids nor letters, and places panels beyond the last column.
    panel.id_val = number
    panel.grid_pos = dashboard.GridPos(h=_height(panel), w=_width(panel), x=x, y=y)
    for index, target in enumerate(panel.targets or []):
        query: Any = target
        query.ref_id = ref_id(index)
    return panel


def _width(panel: Panel) -> int:
    return panel.grid_pos.w if panel.grid_pos else FULL


def _height(panel: Panel) -> int:
    return panel.grid_pos.h if panel.grid_pos else 1
