from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from threading import Event, Thread
from typing import Any

import pytest

from django_gomq.bus import errors
from django_gomq.bus.errors import (
    MAX_CLASS_NAME,
    MAX_DESCRIPTION,
    MAX_TRACEBACK,
    describe_error,
    error_class_name,
    format_traceback,
)
from tests.bus.odd_errors import (
    ODD,
    UNREADABLE,
    make_odd,
    make_unreadable,
    that_says,
    throw,
)
from tests.bus.waiting import LONG, wait_until


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "TEXT_SECONDS", LONG)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_error_that_cannot_say_what_it_is_has_its_class(
    kind: str,
) -> None:
    error = make_unreadable()[kind]

    assert describe_error(error) == "Odd: (its text cannot be read)"


@pytest.mark.parametrize("kind", ODD)
def test_whatever_its_class_does_an_error_is_one_short_line(
    kind: str,
) -> None:
    error = make_odd()[kind]

    text, name = describe_error(error), error_class_name(error)

    assert text.startswith(name[:9])
    assert text.isprintable()
    assert name.isprintable()
    assert len(text) <= MAX_DESCRIPTION + len("...")
    assert len(name) <= MAX_CLASS_NAME + len("...")


@pytest.mark.parametrize("kind", ODD)
def test_whatever_its_class_does_an_error_has_a_short_traceback(
    kind: str,
) -> None:
    error = make_odd()[kind]

    def raise_it() -> None:
        raise error

    with contextlib.suppress(BaseException):
        raise_it()

    text = format_traceback(error)

    assert "in raise_it" in text
    assert text.endswith(describe_error(error))
    assert len(text) <= MAX_TRACEBACK + len("...")
    assert all(line.isprintable() for line in text.split("\n"))


ODD_NAME = "a\n\x1b[31m\u202ebc"


def test_no_name_of_a_call_breaks_a_line_of_a_traceback() -> None:
    names: dict[str, Any] = {}
    source = "def call():\n    raise LookupError"
    exec(compile(source, f"/srv/{ODD_NAME}.py", "exec"), names)
    call = names["call"]
    call.__code__ = call.__code__.replace(co_name=ODD_NAME, co_qualname=ODD_NAME)
    with pytest.raises(LookupError) as raised:
        call()

    text = format_traceback(raised.value)

    lines = text.split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 5
    assert r"a\n\x1b[31m\u202ebc" in lines[-2]


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Lets texts that block go on, at the latest at the end of the test."""
    monkeypatch.setattr(errors, "TEXT_SECONDS", 0.02)
    event = Event()
    yield event
    event.set()
    for thread in errors._readers:
        thread.join(LONG)


def test_a_text_that_blocks_is_not_waited_for_and_in_the_end_not_asked_for(
    go_on: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def block(error: object) -> str:
        asked.append(error)
        go_on.wait(LONG)
        return "at last"

    told = {describe_error(that_says(block)) for _ in range(20)}

    assert told == {"Odd: (its text cannot be read)"}
    assert len(errors._readers) == errors._MOST_READERS
    go_on.set()
    wait_until(lambda: not any(thread.is_alive() for thread in errors._readers))
    assert len(asked) == errors._MOST_READERS
    monkeypatch.setattr(errors, "TEXT_SECONDS", LONG)
    assert describe_error(that_says(block)) == "Odd: at last"


@pytest.mark.parametrize("make", [that_says, ValueError])
def test_a_text_that_anybody_makes_is_made_in_the_context_of_who_asks(
    make: Callable[[Any], BaseException],
) -> None:
    language = ContextVar("language", default="en")
    language.set("de")

    class Lazy:
        def __str__(self) -> str:
            return language.get()

    error = that_says(lambda _: language.get()) if make is that_says else make(Lazy())

    assert describe_error(error).endswith(": de")


def test_where_no_thread_can_start_a_text_is_read_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Thread, "start", throw(RuntimeError("can't start new thread")))

    assert describe_error(that_says(lambda _: "mine")) == "Odd: mine"


def test_a_call_whose_source_nobody_has_is_told_without_it() -> None:
    names: dict[str, Any] = {}
    exec(compile("def call():\n    raise LookupError", "<made>", "exec"), names)
    with pytest.raises(LookupError) as raised:
        names["call"]()

    text = format_traceback(raised.value)

    assert text.endswith('  File "<made>", line 2, in call\nLookupError')


def test_an_error_is_told_as_its_class_and_its_text() -> None:
    assert describe_error(ValueError("no such row")) == "ValueError: no such row"
    assert describe_error(ValueError()) == "ValueError"
    assert describe_error(KeyError("id")) == "KeyError: 'id'"


def test_what_would_break_a_line_is_escaped() -> None:
    told = describe_error(make_odd()["lines"])

    assert told == "ValueError: one\\ntwo\\x1b[31m\\x00\\u2028three"


def test_an_error_that_was_not_raised_has_no_calls() -> None:
    assert format_traceback(ValueError("why")) == "ValueError: why"


def chain() -> Exception:
    def break_it() -> None:
        raise KeyError("id")

    def notice() -> None:
        try:
            break_it()
        except KeyError as error:
            raise LookupError("no row") from error

    try:
        try:
            notice()
        except LookupError:
            raise ValueError("no answer")  # noqa: B904 - its context is told too
    except ValueError as error:
        last = error
    return last


def test_a_traceback_tells_the_causes_first() -> None:
    text = format_traceback(chain())

    places = [
        text.index("KeyError: 'id'"),
        text.index("The above was the direct cause"),
        text.index("LookupError: no row"),
        text.index("While the above was handled"),
        text.index("ValueError: no answer"),
    ]
    assert places == sorted(places)
    assert "raise KeyError" in text


def test_a_context_that_was_hidden_is_not_told() -> None:
    error = chain()
    error.__suppress_context__ = True

    assert "LookupError" not in format_traceback(error)


def test_causes_that_go_round_are_told_once() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one

    text = format_traceback(one)

    assert (text.count("one"), text.count("two")) == (1, 1)


def test_of_a_long_chain_the_last_are_told() -> None:
    error = ValueError("0")
    for number in range(1, 9):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following

    text = format_traceback(error)

    assert "ValueError: 4" in text
    assert "ValueError: 3" not in text


def test_of_deep_calls_the_innermost_are_told() -> None:
    def dive(depth: int) -> None:
        if not depth:
            raise ValueError("deep")
        dive(depth - 1)

    with pytest.raises(ValueError, match="deep") as caught:
        dive(200)

    text = format_traceback(caught.value)

    assert 'raise ValueError("deep")' in text
    assert len(text) <= MAX_TRACEBACK + len("...")


def test_calls_that_cannot_be_read_leave_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = chain()
    monkeypatch.setattr(traceback, "extract_tb", lambda *_: throw(SystemExit(1))(None))

    text = format_traceback(error)

    assert "(its calls cannot be read)" in text
    assert text.endswith("ValueError: no answer")
