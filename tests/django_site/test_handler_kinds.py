from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from django_gomq import consumer, emit, get_broker
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import wait_quiet

seen: list[Any] = []


def note(message: Any) -> None:
    seen.append(message.data)


async def anote(message: Any) -> None:
    seen.append(message.data)


@pytest.mark.parametrize(
    "handler", [sync_to_async(note), async_to_sync(anote)], ids=["to async", "to sync"]
)
def test_handlers_that_asgiref_wraps_are_called(
    live_site: UseSite, handler: Callable[[Any], Any]
) -> None:
    seen.clear()
    consumer("page.viewed", name="wrapped")(handler)
    live_site()

    emit("page.viewed", 7)
    wait_quiet()

    assert seen == [7]
    assert get_broker().stats().consumers["wrapped"].succeeded == 1
