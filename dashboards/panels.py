"""Kinds of panels, made alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import heatmap as heatmaps
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models import common, dashboard, heatmap
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.marks import plain
from dashboards.thresholds import Level, Threshold
from dashboards.variables import DATASOURCE

FULL: Final = 24
HALF: Final = 12
THIRD: Final = 8
EIGHTH: Final = 3
QUARTER: Final = 6

# So that a legend of three lines is seen, which has a third of a panel at most.
_HIGH: Final = 9
# What an axis reaches at least, so that a line of zeros has no axis up to 100.
_LEAST_TOP: Final = {"short": 1, "percentunit": 1, "ops": 0.1, "mps": 0.1, "s": 0.01}
# Pixels; Grafana's own least is 150, too much for a table of twelve columns.
_NARROW: Final = 80
NAME: Final = 190


@dataclass(frozen=True, slots=True)
class About:
    """What the description of a panel has to say."""

    shows: str
    bad: str
    do: str

    def __str__(self) -> str:
        return f"{self.shows}\n\n**Bad:** {self.bad}\n\n**What to do:** {self.do}"


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel; ``name`` is a legend, or the column of a table."""

    expr: str
    name: str = ""
    exemplar: bool = False
    dashed: bool = False
    """For what bounds the others, as a capacity does; the legend leaves it out."""


@dataclass(frozen=True, slots=True)
class Column:
    """How a column of a table looks."""

    unit: str = "short"
    limit: Threshold | float | None = None
    link: str = ""
    label: str = ""
    """Which label it shows, if not the one of its own name."""
    width: int | None = None
    """Pixels; the others share what is left."""


Panel = dashboard.Panel
Limit = Threshold | float | None


def stat(
    title: str,
    about: About,
    expr: str,
    *,
    unit: str = "short",
    limit: Limit = None,
    width: int = EIGHTH,
) -> Panel:
    """Return one number of now, red from the limit on."""
    made = _begin(stats.Panel(), title, about).unit(unit).thresholds(_steps(limit))
    made.reduce_options(build.ReduceDataOptions().calcs(["lastNotNull"]))
    made.color_mode(common.BigValueColorMode.BACKGROUND_SOLID)
    made.graph_mode(common.BigValueGraphMode.NONE).no_value("-").span(width).height(4)
    made.mappings([_nothing("#808080")])
    if unit == _PERCENT:
        made.decimals(1)
    built: Panel = made.with_target(_instant(Query(expr))).build()
    return built


def graph(
    title: str,
    about: About,
    *queries: Query,
    unit: str,
    width: int = HALF,
    stacked: bool = False,
    limit: Limit = None,
    colours: Mapping[str, str] = MappingProxyType({}),
) -> Panel:
    """Return lines over time; the limit is a dashed line, colours are by legend."""
    made = _begin(timeseries.Panel(), title, about).unit(unit).min(0)
    made.span(width).height(_HIGH).fill_opacity(20 if stacked else 0).line_width(1)
    made.legend(_legend()).tooltip(_tooltip()).axis_soft_max(_LEAST_TOP[unit])
    if stacked:
        made.stacking(build.StackingConfig().mode(common.StackingMode.NORMAL))
    if limit is not None:
        style = common.GraphThresholdsStyleMode.DASHED
        made.thresholds(_steps(limit))
        made.thresholds_style(build.GraphThresholdsStyleConfig().mode(style))
    for name, colour in colours.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        made.override_by_name(name, [dashboard.DynamicConfigValue("color", fixed)])
    for index, query in enumerate(queries):
        made.with_target(_over_time(query))
        if query.dashed:
            made.override_by_query(ref_id(index), _dashes())
    built: Panel = made.build()
    return built


def signed(title: str, about: About, *queries: Query, unit: str, width: int) -> Panel:
    """Return lines over time that may fall below zero."""
    made = graph(title, about, *queries, unit=unit, width=width)
    if made.field_config is not None:
        made.field_config.defaults.min_val = None
    return made


def heat(title: str, about: About, query: Query) -> Panel:
    """Return a histogram over time, by its own buckets."""
    made = _begin(heatmaps.Panel(), title, about).span(HALF).height(_HIGH)
    made.calculate(False).y_axis(heatmaps.YAxisConfig().unit("s")).unit("short")
    colours = heatmaps.HeatmapColorOptions().mode(heatmap.HeatmapColorMode.SCHEME)
    made.color(colours.scheme("Oranges").exponent(0.5).steps(64))
    made.cell_gap(1).tooltip(heatmaps.HeatmapTooltip().mode(_SINGLE).y_histogram(True))
    # Counts of nothing are no heat.
    made.filter_values(heatmaps.FilterValueRange().le(1e-9))
    target = _over_time(query).format(PromQueryFormat.HEATMAP)
    built: Panel = made.with_target(target).build()
    return built


@dataclass(frozen=True, slots=True)
class Word:
    """How a value is shown that is no number to people."""

    text: str
    colour: str


def states(
    title: str,
    about: About,
    query: Query,
    words: Mapping[int, Word],
    *,
    width: int = HALF,
) -> Panel:
    """Return what something was, over time: a word for each value."""
    made = _begin(statetimeline.Panel(), title, about).span(width).height(_HIGH)
    options = {
        str(value): dashboard.ValueMappingResult(text=word.text, color=word.colour)
        for value, word in words.items()
    }
    made.mappings([dashboard.ValueMap(options=options)]).unit("short")
    list_of_words = build.VizLegendOptions().show_legend(True)
    list_of_words.display_mode(common.LegendDisplayMode.LIST)
    made.legend(list_of_words.placement(_BELOW)).merge_values(True)
    built: Panel = made.with_target(_over_time(query)).build()
    return built


def listing(
    title: str,
    about: About,
    queries: Sequence[Query],
    columns: Mapping[str, Column],
    *,
    width: int = FULL,
) -> Panel:
    """Return a table: a row for each set of labels, a column for each label or query.

    ``columns`` are in the order of the table; a query's column has its name.
    """
    made = _begin(table.Panel(), title, about).unit("short").span(width)
    made.height(_HIGH).min_width(_NARROW).mappings([_nothing("transparent")])
    for query in queries:
        made.with_target(_instant(query).format(PromQueryFormat.TABLE))
    made.with_transformation(
        dashboard.DataTransformerConfig(id_val="merge", options={})
    )
    made.with_transformation(_order(queries, columns))
    for name, column in columns.items():
        made.override_by_name(name, _properties(column))
    built: Panel = made.build()
    return built


def _begin(made: Any, title: str, about: About) -> Any:
    return made.title(title).description(str(about)).datasource(DATASOURCE)


def _over_time(query: Query) -> Dataquery:
    made = Dataquery().expr(plain(query.expr)).legend_format(query.name).range()
    return made.exemplar(query.exemplar).datasource(DATASOURCE)


def _instant(query: Query) -> Dataquery:
    made = Dataquery().expr(plain(query.expr)).legend_format(query.name).instant()
    return made.datasource(DATASOURCE)


def _steps(limit: Limit) -> ThresholdsConfig:
    steps = [dashboard.Threshold(value=None, color="green")]
    if limit is not None:
        value = Level(limit) if isinstance(limit, Threshold) else limit
        steps.append(dashboard.Threshold(value=value, color="red"))
    return ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _legend() -> build.VizLegendOptions:
    made = build.VizLegendOptions().show_legend(True).calcs(["lastNotNull", "max"])
    made.display_mode(common.LegendDisplayMode.TABLE).placement(_BELOW)
    # It has room for three: those that reached most, not those that come first.
    return made.sort_by("Max").sort_desc(True)


def _dashes() -> list[dashboard.DynamicConfigValue]:
    style = {"fill": "dash", "dash": [10, 10]}
    hidden = {"legend": True, "tooltip": False, "viz": False}
    return [
        dashboard.DynamicConfigValue("custom.lineStyle", style),
        dashboard.DynamicConfigValue("custom.hideFrom", hidden),
    ]


_PERCENT: Final = "percentunit"
_BELOW: Final = common.LegendPlacement.BOTTOM
_SINGLE: Final = common.TooltipDisplayMode.SINGLE


def _tooltip() -> build.VizTooltipOptions:
    made = build.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    return made.sort(common.SortOrder.DESCENDING)


def _nothing(colour: str) -> dashboard.SpecialValueMap:
    # Else it is as green as what is well; and a quantile of nothing is NaN.
    shown = dashboard.ValueMappingResult(text="-", color=colour)
    match = dashboard.SpecialValueMatch.NULL_AND_NAN
    options = dashboard.DashboardSpecialValueMapOptions(match=match, result=shown)
    return dashboard.SpecialValueMap(options=options)


def _order(
    queries: Sequence[Query], columns: Mapping[str, Column]
) -> dashboard.DataTransformerConfig:
    # Grafana calls the column of a query "Value #" and its letter.
    names = {f"Value #{ref_id(n)}": query.name for n, query in enumerate(queries)}
    labels = {
        column.label or name.lower(): name
        for name, column in columns.items()
        if name not in names.values()
    }
    renamed = {**labels, **names}
    order = list(columns)
    options = {
        "excludeByName": {"Time": True},
        "renameByName": renamed,
        "indexByName": {old: order.index(new) for old, new in renamed.items()},
    }
    return dashboard.DataTransformerConfig(id_val="organize", options=options)


def ref_id(number: int) -> str:
    """Return the letter of a query."""
    return chr(ord("A") + number)


def _properties(column: Column) -> list[dashboard.DynamicConfigValue]:
    made = [dashboard.DynamicConfigValue(id_val="unit", value=column.unit)]
    if column.unit == _PERCENT:
        made.append(dashboard.DynamicConfigValue("decimals", 1))
    if column.limit is not None:
        cell = {"type": "color-background", "mode": "gradient"}
        made += [
            dashboard.DynamicConfigValue("thresholds", _steps(column.limit).build()),
            dashboard.DynamicConfigValue("custom.cellOptions", cell),
        ]
    if column.width is not None:
        made.append(dashboard.DynamicConfigValue("custom.width", column.width))
    if column.link:
        link = [{"title": "The consumer's board", "url": column.link}]
        made.append(dashboard.DynamicConfigValue("links", link))
    return made
