"""The choices at the top of each board."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import (
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards.promql import BROKER, JOB, PROCESS

DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
ANY: Final = ".+"
"""What "All" stands for."""


def datasource() -> DatasourceVariable:
    """Return the choice of a Prometheus."""
    default = VariableOption(text="default", value="default")
    made = DatasourceVariable("datasource").label("Data source").type("prometheus")
    return made.current(default)


def job() -> QueryVariable:
    """Return the choice of jobs: all those that have django-gomq."""
    return _labels("job", f"gomq_build_info{{{JOB}}}")


def instance() -> QueryVariable:
    """Return the choice of scraped addresses."""
    return _labels("instance", 'gomq_build_info{job=~"$job"}')


def broker(where: str = PROCESS) -> QueryVariable:
    """Return the choice of brokers."""
    return _labels("broker", f"gomq_dispatcher_up{{{where}}}")


def event(where: str = BROKER) -> QueryVariable:
    """Return the choice of event types."""
    return _labels("event", f"gomq_messages_published_total{{{where}}}")


def consumer(where: str = BROKER) -> QueryVariable:
    """Return the choice of consumers."""
    return _labels("consumer", f"gomq_consumer_info{{{where}}}")


def _labels(name: str, series: str) -> QueryVariable:
    query = f"label_values({series}, {name})"
    made = QueryVariable(name).label(name.capitalize()).datasource(DATASOURCE)
    made.query({"query": query, "refId": name}).definition(query)
    made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    made.sort(VariableSort.NATURAL_ASC)
    everything = VariableOption(selected=True, text=["All"], value=["$__all"])
    return made.multi(True).include_all(True).all_value(ANY).current(everything)
