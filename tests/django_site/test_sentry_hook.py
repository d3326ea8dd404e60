"""The hook of docs/observability.md, as the page shows it."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from django_gomq import consumer, emit
from django_gomq.bus.hooks import Hook
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import hold, wait_quiet
from tests.django_site.waiting import SECONDS, wait_until

PAGE: Final = Path(__file__).parents[2] / "docs" / "observability.md"
CODE: Final = re.compile(r"```python\n# clinic/hooks\.py\n(.*?)```", re.DOTALL)
TABLE: Final = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


class Keeping(Transport):
    """Keeps what would go over the network."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            self.events.append(dict(event))


@pytest.fixture
def sentry() -> Iterator[Keeping]:
    transport = Keeping()
    before = sentry_sdk.get_global_scope().client
    sentry_sdk.init(
        dsn="https://key@sentry.invalid/1",
        transport=transport,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
    )
    yield transport
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(before)


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes the page's module, and returns the path of its hook."""
    [code] = CODE.findall(PAGE.read_text())
    module = types.ModuleType("hooks_of_the_page")
    exec(compile(code, str(PAGE), "exec"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert len(code.splitlines()) <= 30
    return f"{module.__name__}.ReportDeadLetters"


def test_a_dead_letter_becomes_one_issue(
    live_site: UseSite, sentry: Keeping, path: str
) -> None:
    def fail(message: object) -> None:
        raise LookupError("no such page")

    consumer("page.viewed", name="fails")(fail)
    live_site(HOOKS=[path])

    receipt = emit("page.viewed")

    wait_quiet()
    [event] = sentry.events
    [thrown] = event["exception"]["values"]
    assert (thrown["type"], thrown["value"]) == ("LookupError", "no such page")
    assert thrown["stacktrace"]["frames"][-1]["function"] == "fail"
    assert event["tags"] == {"gomq.consumer": "fails", "gomq.event": "page.viewed"}
    assert event["contexts"]["gomq"] == {
        "broker": "default",
        "message_id": receipt.message.id,
        "attempt": 1,
    }
    assert event["fingerprint"] == ["{{ default }}", "fails"]


def test_what_a_stop_leaves_is_told(
    live_site: UseSite, sentry: Keeping, path: str
) -> None:
    held = hold("page.viewed")
    site = live_site(HOOKS=[path], DRAIN_TIMEOUT=0.01)
    for _ in range(3):
        emit("page.viewed")
    assert held.entered.wait(SECONDS)

    site.close()

    held.release.set()
    wait_until(lambda: sentry.events, "the event")
    [event] = sentry.events
    assert event["message"] == "Broker default left 3 messages"


def test_the_page_tells_of_every_method() -> None:
    text = PAGE.read_text()
    public = {name for name in vars(Hook) if not name.startswith("_")}
    section = text[text.index("## Write a hook") :]

    assert set(TABLE.findall(section)) <= public
    assert {name for name in public if f"`{name}`" not in section} == {
        "has_unsampled_path"
    }
