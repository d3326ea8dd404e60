from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_gomq import Receipt, emit, get_broker
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import Seen, Undo, listen, wait_quiet

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@dataclass(frozen=True)
class Block:
    steps: Sequence[Any]
    """Blocks, and None for an emit."""
    fails: bool
    savepoint: bool = True


def blocks(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        Block,
        st.lists(st.none() | children, max_size=4),
        st.booleans(),
        st.sampled_from([True, True, False]),
    )


programs = st.lists(st.recursive(st.none(), blocks, max_leaves=12), max_size=4)


@dataclass(frozen=True)
class Chosen:
    """A block of one of two databases, whose rollback goes no further."""

    steps: Sequence[Any]
    using: str
    fails: bool


def chosen(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        Chosen,
        st.lists(st.none() | children, max_size=4),
        st.sampled_from(["default", "other"]),
        st.booleans(),
    )


on_two_databases = st.lists(
    st.recursive(st.none(), chosen, max_leaves=12), min_size=1, max_size=4
)


class Run:
    """Runs a program, emitting beside an on_commit() of Django's own each time."""

    def __init__(self) -> None:
        self.model: list[int] = []
        self.receipts: list[Receipt] = []

    def step(self, step: Block | None) -> None:
        if step is not None:
            self.block(step)
            return
        number = len(self.receipts)
        transaction.on_commit(lambda: self.model.append(number))
        self.receipts.append(emit("page.viewed", number))

    def block(self, block: Block) -> None:
        try:
            with transaction.atomic(savepoint=block.savepoint):
                for step in block.steps:
                    self.step(step)
                if block.fails:
                    raise Undo
        except Undo:
            pass


USUAL = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def renew(live_site: UseSite) -> Seen:
    """Make a site with one consumer, in the place of that of the example before."""
    from django_gomq.bus.registry import registry

    registry.restore({})
    registry.on_added = None  # the site before has one of this name
    seen = listen("page.viewed", capacity=5000)
    live_site()
    return seen


@USUAL
@given(program=programs)
def test_events_are_those_of_djangos_own_callbacks_in_their_order(
    live_site: UseSite, program: list[Block | None]
) -> None:
    check(live_site, program)


@USUAL
@given(program=on_two_databases)
def test_on_two_databases_events_are_those_that_no_block_around_them_took_back(
    live_site: UseSite, program: list[Chosen | None]
) -> None:
    seen = renew(live_site)
    receipts: list[tuple[bool, Receipt]] = []

    def run(step: Chosen | None, *, is_kept: bool) -> None:
        if step is None:
            receipts.append((is_kept, emit("page.viewed", len(receipts))))
            return
        with suppress(Undo), transaction.atomic(using=step.using):
            for inner in step.steps:
                run(inner, is_kept=is_kept and not step.fails)
            if step.fails:
                raise Undo

    for step in program:
        run(step, is_kept=True)
    wait_quiet()

    expected = ["accepted" if is_kept else "refused" for is_kept, _ in receipts]
    assert [receipt.state for _, receipt in receipts] == expected
    assert sorted(seen.data) == [
        number for number, (is_kept, _) in enumerate(receipts) if is_kept
    ]


@pytest.mark.slow
@settings(USUAL, max_examples=300)
@given(program=programs)
def test_they_are_so_in_many_more_programs(
    live_site: UseSite, program: list[Block | None]
) -> None:
    check(live_site, program)


def check(live_site: UseSite, program: list[Block | None]) -> None:
    seen = renew(live_site)
    run = Run()

    for step in program:
        run.step(step)
    wait_quiet()

    accepted = [n for n, one in enumerate(run.receipts) if one.state == "accepted"]
    refused = [one for one in run.receipts if one.state == "refused"]
    assert seen.data == run.model
    assert accepted == sorted(run.model)
    assert len(accepted) + len(refused) == len(run.receipts)
    queue = get_broker().stats().queues["page.viewed"]
    assert queue.rolled_back == len(refused)
