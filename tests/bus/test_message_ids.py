from __future__ import annotations

import time
import uuid

from hypothesis import given, settings
from hypothesis import strategies as st

from django_gomq.bus.message import Message, new_id
from tests.bus.waiting import fast_switching, run_threads

MS = 1_000_000
MOMENT = 1_700_000_000_123 * MS
MOMENTS = st.integers(0, (2**48 - 1) * MS)


@given(MOMENTS)
@settings(deadline=None)
def test_an_id_is_a_uuid_of_version_7(moment: int) -> None:
    made = uuid.UUID(new_id(moment))

    assert (made.version, made.variant) == (7, uuid.RFC_4122)


@given(MOMENTS)
@settings(deadline=None)
def test_an_id_begins_with_its_milliseconds(moment: int) -> None:
    made = uuid.UUID(new_id(moment))

    assert made.int >> 80 == moment // MS


def test_an_id_is_written_as_every_uuid() -> None:
    made = new_id(MOMENT)

    assert made == str(uuid.UUID(made))


def test_ids_of_one_millisecond_sort_in_the_order_they_were_made() -> None:
    made = [new_id(MOMENT + number) for number in range(1000)]

    assert made == sorted(set(made))


@given(st.lists(MOMENTS, min_size=2, max_size=20))
@settings(deadline=None)
def test_ids_sort_in_the_order_they_were_made(moments: list[int]) -> None:
    made = [new_id(moment) for moment in sorted(moments)]

    assert made == sorted(set(made))


def test_two_milliseconds_share_no_random_bits() -> None:
    # 26 bits are drawn again each time; equal 20 times over would be no chance.
    drawn = {new_id(MOMENT + number * MS)[14:23] for number in range(20)}

    assert len(drawn) > 1


def test_ids_made_by_racing_threads_differ() -> None:
    made: list[str] = []

    def make() -> None:
        made.extend([new_id(time.time_ns()) for _ in range(2000)])

    with fast_switching():
        run_threads(*[make] * 8)

    assert len(set(made)) == 16_000


def test_a_message_gets_an_id_of_its_moment() -> None:
    before = time.time_ns() // MS
    message = Message("a.b")
    after = time.time_ns() // MS

    assert before <= uuid.UUID(message.id).int >> 80 <= after


def test_two_messages_have_two_ids() -> None:
    assert Message("a.b").id != Message("a.b").id
