from __future__ import annotations

import pytest
from django.db import transaction
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from django_gomq import emit, get_broker
from django_gomq.bus.hooks import Hook
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen

TRACE_ID = 0x1234567890ABCDEF1234567890ABCDEF
SPAN = NonRecordingSpan(SpanContext(TRACE_ID, 0x1234, False, TraceFlags(0)))


def kinds(site_hooks: object) -> list[str]:
    hooks: tuple[Hook, ...] = getattr(site_hooks, "_hooks", ())
    return [type(one).__name__ for one in hooks]


def test_a_site_logs_and_does_not_trace_by_default(use_site: UseSite) -> None:
    use_site()

    assert kinds(get_broker().hooks) == ["LogHook"]


@pytest.mark.parametrize(("enabled", "traced"), [(True, True), (False, False)])
def test_tracing_is_a_setting(use_site: UseSite, enabled: bool, traced: bool) -> None:
    use_site(TRACING={"ENABLED": enabled})

    assert ("TracingHook" in kinds(get_broker().hooks)) is traced


def test_all_brokers_of_a_process_share_their_hooks(use_site: UseSite) -> None:
    use_site(BROKERS={"default": {}, "second": {}}, TRACING={"ENABLED": True})

    first, second = get_broker().hooks, get_broker("second").hooks

    assert first._hooks == second._hooks


def test_the_context_filter_brings_its_hook(
    use_site: UseSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_gomq.observability.logs.ContextFilter.in_use", True)
    use_site()

    assert "ContextHook" in kinds(get_broker().hooks)


@pytest.mark.django_db(transaction=True)
def test_an_event_keeps_the_trace_of_its_emit_until_the_commit(
    live_site: UseSite,
) -> None:
    seen = listen("page.viewed")
    live_site(TRACING={"ENABLED": True})

    with transaction.atomic():
        token = context.attach(trace.set_span_in_context(SPAN))
        emit("page.viewed", 1)
        context.detach(token)
        emit("page.viewed", 2)

    seen.wait_for(2)
    headers = {one.data: one.headers for one in seen.messages}
    assert f"{TRACE_ID:032x}" in headers[1]["traceparent"]
    assert "traceparent" not in headers[2]
