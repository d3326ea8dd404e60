"""The hot loop of a handler thread: delivery after delivery; it decides nothing."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from typing import Any

import msgspec

from .delivery import Delivery
from .handler import Handler
from .hooks import Hooks
from .host import Care, Host
from .message import Message
from .outcome import ACK, Outcome
from .received import Received, receive

Decide = Callable[[Delivery, BaseException], Outcome]
Watched = Callable[[Message[Any], Delivery], tuple[Outcome, str | None]]


class Passage(msgspec.Struct):
    """What came of deliveries that were handled one after the other."""

    times: list[float] = []
    """Its beginning and the end of each attempt, by ``time.monotonic()``."""
    ended: list[tuple[Delivery, Outcome]] = []
    """The deliveries that did not succeed, in their order."""
    ended_at: list[int] = []
    """Which ones these are, counted from 0: a message may be published twice."""
    exemplars: list[tuple[float, str]] = []
    """Seconds of attempts whose trace is kept, with that trace."""

    def end(self, delivery: Delivery, outcome: Outcome) -> None:
        """Note that the attempt at hand did not succeed, before its time is."""
        self.ended.append((delivery, outcome))
        self.ended_at.append(len(self.times) - 1)


class Lane:
    """Runs one consumer's handler many times; thread-safe, blocks as the handler does.

    Every delivery gets a message of its own and a ``contextvars`` context in which
    nothing is set but a trace that nobody keeps.
    """

    def __init__(
        self, handler: Handler, decoders: Mapping[str, Any], hooks: Hooks, host: Host
    ) -> None:
        self._handler = handler
        self._decoders = decoders
        self._hooks = hooks
        self._host = host

    def run(  # noqa: C901, PLR0915 - a call for each step would double its cost
        self, decide: Decide, watched: Watched, hand: Iterator[Delivery], until: float
    ) -> Passage:
        """Run the handler for one delivery after the other.

        Stops when there are no more, and after the first that ends later than
        ``until``, in seconds of ``time.monotonic()``.
        """
        # Each line here costs every message handled 5 to 60 ns: so all names are local,
        # no call is made that can be spared, and one look at the clock ends an attempt
        # and begins the next.
        clock, handler, decoders = time.monotonic, self._handler, self._decoders
        lend_context, care = self._hooks.lend_context, self._host.care()
        context, may_run = Context(), True
        passage = Passage()
        times = passage.times
        times.append(clock())
        for delivery in hand:
            try:
                if care.is_due:
                    care.before()
                if lend_context is not None:
                    try:
                        may_run = lend_context(delivery.message, context)
                    except Exception:  # noqa: BLE001 - a hook's bug
                        may_run = self._hooks.note_lender()
                if may_run:
                    result = context.run(handler, Received(delivery, decoders))
                    if result is not None:
                        refuse_coroutine(result)
                else:
                    self._run_watched(watched, delivery, passage)
            except BaseException as error:  # noqa: BLE001 - it must not end our thread
                outcome = self._decide(decide, delivery, error)
                passage.end(delivery, outcome)
            if care.is_due:
                end_care(care, self._hooks)
            # The handler left something in it; a lender sets the same one each time.
            if context and (lend_context is None or len(context) > 1):
                context = Context()
            now = clock()
            times.append(now)
            if now > until:
                break
        return passage

    def _decide(
        self, decide: Decide, delivery: Delivery, error: BaseException
    ) -> Outcome:
        try:
            return decide(delivery, error)
        except BaseException as failure:  # noqa: BLE001 - a bug of ours
            bug = failure
            self._hooks.tell(lambda hook: hook.failed("processor", bug))
            return decide(delivery, bug)

    def _run_watched(
        self, watched: Watched, delivery: Delivery, passage: Passage
    ) -> None:
        message = receive(delivery, self._decoders)
        began = time.monotonic()
        outcome, trace_id = Context().run(watched, message, delivery)
        if outcome is not ACK:
            passage.end(delivery, outcome)
        if trace_id is not None:
            passage.exemplars.append((time.monotonic() - began, trace_id))


def end_care(care: Care, hooks: Hooks) -> None:
    """Let the host clean up after a handler."""
    # What it raises comes too late to change what the handler did.
    try:
        care.after()
    except BaseException as error:  # noqa: BLE001 - a host's bug must not end our thread
        report_host(error, hooks)


def report_host(error: BaseException, hooks: Hooks) -> None:
    """Tell the observers that the host failed."""
    hooks.tell(lambda hook: hook.failed("host", error))


def refuse_coroutine(result: object) -> None:
    """Raise TypeError where a sync handler returned a coroutine."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("A sync handler returned a coroutine: make it 'async def'.")
