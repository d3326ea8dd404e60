"""Events that handlers emit name what caused them."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from django_gomq import Message, aemit, consumer, emit, emit_many
from django_gomq.testing import inline
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Seen, listen
from tests.django_site.waiting import wait_until


def wait_for(seen: Seen, count: int) -> list[tuple[str | None, str | None]]:
    wait_until(lambda: len(seen.messages) == count)
    return [(one.causation_id, one.correlation_id) for one in seen.messages]


def test_an_emit_outside_of_handlers_has_no_cause_unless_its_headers_have(
    live_site: UseSite,
) -> None:
    seen = listen("page.viewed")
    live_site()

    emit("page.viewed")
    emit("page.viewed", headers={"correlationid": "request 7"})

    assert wait_for(seen, 2) == [(None, None), (None, "request 7")]


def test_every_way_to_emit_in_a_handler_names_the_message_in_work(
    live_site: UseSite, transactional_db: None
) -> None:
    @consumer("page.viewed", name="emitting")
    def follow(message: Message[Any]) -> None:
        emit("page.liked", 1)
        emit("page.liked", 2, key="7", headers={"tenant": "1"})
        emit_many([("page.liked", 3), ("page.liked", 4)])
        with transaction.atomic():
            emit("page.liked", 5)

    seen = listen("page.liked")
    live_site()

    cause = emit("page.viewed").message

    assert wait_for(seen, 5) == [(cause.id, cause.id)] * 5


def test_an_async_handler_names_its_message(live_site: UseSite) -> None:
    @consumer("page.viewed", name="emitting")
    async def follow(message: Message[Any]) -> None:
        await aemit("page.liked")
        await sync_to_async(emit)("page.liked")

    seen = listen("page.liked")
    live_site()

    causes = [emit("page.viewed").message.id for _ in range(3)]

    expected = sorted((cause, cause) for cause in causes for _ in range(2))
    assert sorted(wait_for(seen, 6)) == expected


def test_what_is_emitted_at_the_commit_of_a_handler_names_its_message(
    live_site: UseSite, transactional_db: None
) -> None:
    @consumer("page.viewed", name="emitting", atomic=True)
    def follow(message: Message[Any]) -> None:
        transaction.on_commit(lambda: emit("page.liked") and None)

    seen = listen("page.liked")
    live_site()

    cause = emit("page.viewed").message

    assert wait_for(seen, 1) == [(cause.id, cause.id)]


@pytest.mark.django_db
def test_inline_handlers_name_causes_as_on_the_bus(use_site: UseSite) -> None:
    @consumer("page.viewed", name="emitting")
    def follow(message: Message[Any]) -> None:
        emit("page.liked")

    seen = listen("page.liked")
    use_site()

    with inline():
        cause = emit("page.viewed").message

    (message,) = seen.messages
    assert (message.causation_id, message.correlation_id) == (cause.id, cause.id)
