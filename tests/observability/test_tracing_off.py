from __future__ import annotations

import pytest

from tests.architecture.interpreter import run_python

ASK = """
from django_gomq.observability.tracing import is_sdk_configured
print(is_sdk_configured())
"""
SET_UP_AN_SDK = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
"""
SET_UP_A_NO_OP = """
from opentelemetry import trace
trace.set_tracer_provider(trace.NoOpTracerProvider())
"""
SAY_IT_IS_DISABLED = """
import os
os.environ["OTEL_SDK_DISABLED"] = "true"
"""
LOAD_THE_OTHERS = """
import sys
import django_gomq.observability.logs
import django_gomq.observability.metrics
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


@pytest.mark.parametrize(
    ("before", "answer"),
    [
        ("", "False"),
        (SET_UP_A_NO_OP, "False"),
        (SET_UP_AN_SDK, "True"),
        (SAY_IT_IS_DISABLED + SET_UP_AN_SDK, "False"),
    ],
)
def test_tracing_can_be_on_only_where_spans_are_kept(before: str, answer: str) -> None:
    assert run_python(before + ASK).strip() == answer


def test_logs_and_metrics_work_without_opentelemetry() -> None:
    found = run_python(LOAD_THE_OTHERS, without=("opentelemetry",))

    assert found.strip() == "[]"
