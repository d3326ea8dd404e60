"""What operators want of consumers on Redis is kept at the server."""

from __future__ import annotations

from typing import Any

import pytest

from django_gomq.bus.backend import ConsumerState
from django_gomq.bus.errors import ConfigurationError
from django_gomq.testing.conformance.site import (
    CONSUMER,
    EVENT,
    Notes,
    Process,
    Site,
    wait_until,
)

RENAMED = "suite.renamed"


def set_up(site: Site, name: str = CONSUMER, **options: Any) -> Process:
    """Have a process that has set a consumer up, and does not run."""
    process = site.process(may_start=lambda: False)
    process.broker.consume([EVENT], print, name=name, **options)
    process.broker.setup()
    return process


def test_every_process_pauses_and_goes_on_as_one_of_them_was_told(
    redis_site: Site,
) -> None:
    one, two, notes = redis_site.process(), redis_site.process(), Notes()
    one.consume(notes)
    two.consume(notes)
    operator = redis_site.process(may_start=lambda: False)

    operator.broker.backend.desire(CONSUMER, ConsumerState(paused=True, capacity=7))

    wait_until(lambda: one.stats().paused and two.stats().paused)
    assert (one.stats().capacity, two.stats().capacity) == (7, 7)
    operator.send(1)
    late = redis_site.process()
    late.consume(notes)
    wait_until(lambda: late.stats().paused)
    operator.broker.backend.desire(CONSUMER, ConsumerState(paused=False))
    wait_until(lambda: notes.numbers == [1])
    assert one.stats().capacity == 7


def test_what_is_not_said_stays_as_it_was_wanted(redis_site: Site) -> None:
    backend = set_up(redis_site).broker.backend

    backend.desire(CONSUMER, ConsumerState())
    assert backend.desired_state() == {}
    backend.desire(CONSUMER, ConsumerState(paused=True))
    backend.desire(CONSUMER, ConsumerState(capacity=3))

    assert backend.desired_state() == {CONSUMER: ConsumerState(paused=True, capacity=3)}


def test_a_consumer_that_is_not_set_up_cannot_be_wanted_otherwise(
    redis_site: Site,
) -> None:
    backend = set_up(redis_site).broker.backend

    with pytest.raises(ConfigurationError, match=r"no consumer 'suite.nobody'"):
        backend.desire("suite.nobody", ConsumerState(paused=True))

    assert backend.desired_state() == {}


def test_a_new_name_takes_along_what_is_wanted_and_a_removal_forgets_it(
    redis_site: Site,
) -> None:
    backend = set_up(redis_site).broker.backend
    wanted = ConsumerState(paused=True)
    backend.desire(CONSUMER, wanted)

    set_up(redis_site, RENAMED, aliases=[CONSUMER])
    assert backend.desired_state() == {RENAMED: wanted}

    backend.remove(RENAMED, discard=True)
    assert backend.desired_state() == {}


def test_a_removal_ends_what_was_left_of_types_that_were_dropped(
    redis_site: Site, redis_client: Any
) -> None:
    old = redis_site.process(may_start=lambda: False)
    old.consume(Notes(), EVENT, "suite.more", starts=False)
    old.send(1, type="suite.more")
    backend = set_up(redis_site).broker.backend

    count = backend.remove(CONSUMER, discard=False)

    assert count == 1
    assert [letter.message.data for letter in backend.dead_letters()] == [1]
    assert not redis_client.exists("{gomq}:e:suite.more")


@pytest.mark.parametrize("types", [(EVENT,), ("suite.more",)])
def test_a_removal_ends_what_is_delayed_for_nobody_else(
    redis_site: Site, redis_client: Any, types: tuple[str, ...]
) -> None:
    old = redis_site.process(may_start=lambda: False)
    old.consume(Notes(), EVENT, starts=False)
    old.send(1, delay=3600.0)
    new = redis_site.process(may_start=lambda: False)
    new.consume(Notes(), *types, starts=False)

    count = new.backend.remove(CONSUMER, discard=False)

    assert count == 1
    assert [letter.message.data for letter in new.backend.dead_letters()] == [1]
    assert not redis_client.exists(f"{{gomq}}:e:{EVENT}", f"{{gomq}}:later:e:{EVENT}")


def test_a_removal_leaves_what_is_delayed_to_the_others(
    redis_site: Site, redis_client: Any
) -> None:
    backend = set_up(redis_site).broker.backend
    other = set_up(redis_site, RENAMED)
    other.send(1, delay=3600.0)

    assert backend.remove(CONSUMER, discard=False) == 0

    assert redis_client.zcard(f"{{gomq}}:later:e:{EVENT}") == 1
    assert backend.dead_letters() == []
