"""From a delivery to its outcome: calls the handler and decides."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import msgspec

from django_gomq.bus.consumer import Consumer
from django_gomq.bus.delivery import (
    ACK,
    CUT_OFF,
    EXPIRED,
    MIN_RETRY_LATER,
    BatchFailed,
    DeadLettered,
    DeliveredMessage,
    Delivery,
    HandlerTimeoutError,
    Outcome,
    Reject,
    RetryAfter,
    RetryLater,
    Verdict,
    receive,
)
from django_gomq.bus.errors import (
    ConfigurationError,
    DecodeError,
    class_name,
    printable,
)
from django_gomq.bus.hooks import Attempt, Hooks
from django_gomq.bus.message import Message
from django_gomq.bus.process.clock import Clock
from django_gomq.bus.process.fork import current, end_if_forked, handler_context

from .causes import InWork, enter, in_work_here, work_of_thread
from .environment import Environment, ThreadScope
from .transactions import TransactionInbox, in_transaction


class SliceResult(msgspec.Struct):
    """What came of deliveries that were handled one after the other."""

    times: list[float] = []
    """Its beginning and the end of each attempt, by ``Clock.monotonic()``."""
    ended: list[tuple[Delivery, Outcome]] = []
    """The deliveries that did not succeed, in their order."""
    ended_at: list[int] = []
    """Which ones these are, counted from 0: a message may be published twice."""
    exemplars: list[tuple[float, str]] = []
    """Seconds of attempts whose trace is kept, with that trace."""

    def last_error(self) -> BaseException | None:
        """Return what the last attempt raised, if it did."""
        if not self.ended_at or self.ended_at[-1] != len(self.times) - 2:
            return None
        return error_of(self.ended[-1][1])

    def end(self, delivery: Delivery, outcome: Outcome) -> None:
        """Note that the attempt at hand did not succeed, before its time is."""
        self.ended.append((delivery, outcome))
        self.ended_at.append(len(self.times) - 1)


def error_of(outcome: Outcome) -> BaseException | None:
    """Return what the handler raised, as far as its outcome says so."""
    return getattr(outcome, "error", None)


def end_scope(scope: ThreadScope, hooks: Hooks) -> None:
    """Let the environment clean up after a handler."""
    # What it raises comes too late to change what the handler did.
    try:
        scope.after()
    except BaseException as error:  # noqa: BLE001 - a bug of it must not end our thread
        report_environment(error, hooks)


def report_environment(error: BaseException, hooks: Hooks) -> None:
    """Tell the observers that the environment failed."""
    hooks.notify(lambda hook: hook.failed("environment", error))


def refuse_unfinished(result: object) -> None:
    """Raise TypeError where a handler returned what has yet to run, or to end."""
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(
            f"The handler returned {_describe(result)} instead of running: a function "
            "with 'yield' does nothing until somebody iterates over it."
        )
    if hasattr(type(result), "__await__"):
        if inspect.iscoroutine(result):
            result.close()  # it warns otherwise that nobody awaited it
        raise TypeError(
            f"The handler returned {_describe(result)} that nobody awaits: make it "
            "'async def', and await there what it calls."
        )


def _describe(result: object) -> str:
    made_by = getattr(result, "__qualname__", None)  # of coroutines and generators
    name = f" of {printable(made_by)}()" if isinstance(made_by, str) else ""
    return f"a {class_name(result)}{name}"


class Processor:
    """Runs one consumer's handler; thread-safe, blocks as long as the handler does.

    Every delivery gets a message of its own and a fresh ``contextvars`` context.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        broker: str,
        backend: str,
        hooks: Hooks,
        environment: Environment,
        longest_pause: float = math.inf,
        inbox: TransactionInbox | None = None,
    ) -> None:
        """``longest_pause`` is how many seconds a message may wait here to come again.

        What asks for more comes again after these. ``inbox`` is for what is idempotent.
        """
        self._longest_pause = longest_pause
        self._consumer = consumer
        self._broker = broker
        self._backend = backend
        self._hooks = hooks
        self._environment = environment
        self._decoders = consumer.decoders
        self._max_age = consumer.max_age
        self._handler = in_transaction(consumer, environment, inbox)
        self._is_rolled_back = bool(consumer.atomic or consumer.idempotent)
        """What an attempt did that fails, as far as that is in the database."""
        is_watched = bool(hooks.attempt_watchers)
        self._call = self._call_watched if is_watched else self._call_bare
        needs_no_watch = not is_watched or hooks.enter_unsampled is not None
        self.is_plain = needs_no_watch and not consumer.max_age
        """Whether most deliveries need no more than their handler: ``process_many``."""

    def process_many(  # noqa: C901, PLR0915 - a call for each step would double its cost
        self, deliveries: Iterator[Delivery], until: float
    ) -> SliceResult:
        """Run a sync handler for one delivery after the other.

        Stops when there are no more, and after the first that ends later than
        ``until``, in seconds of ``Clock.monotonic()``. Each gets a ``contextvars``
        context in which nothing is set but the message that it is at, and a trace that
        nobody keeps.
        """
        # Each line here costs every message handled 5 to 60 ns: so all names are local,
        # no call is made that can be spared, and one look at the clock ends an attempt
        # and begins the next.
        clock, handler, decoders = Clock.monotonic, self._handler, self._decoders
        enter_unsampled = self._hooks.enter_unsampled
        scope = self._environment.thread_scope()
        work = work_of_thread()
        new_context = work.new_context
        context, may_run = new_context(), True
        # A hook sets the same variable each time.
        unused = len(context) + (enter_unsampled is not None)
        found = SliceResult()
        times = found.times
        times.append(clock())
        for delivery in deliveries:
            try:
                if scope.is_needed:
                    scope.before()
                if enter_unsampled is not None:
                    try:
                        may_run = enter_unsampled(delivery.message, context)
                    except Exception:  # noqa: BLE001 - a hook's bug
                        may_run = self._hooks.note_enter_failure()
                if may_run:
                    work.delivery = delivery
                    result = context.run(handler, DeliveredMessage(delivery, decoders))
                    if result is not None:
                        refuse_unfinished(result)
                else:
                    self._process_watched(delivery, found)
            except BaseException as error:  # noqa: BLE001 - it must not end our thread
                found.end(delivery, self._decide_safely(delivery, error))
            if scope.is_needed:
                end_scope(scope, self._hooks)
            if len(context) > unused:  # the handler left something in it
                context = new_context()
            now = clock()
            times.append(now)
            if now > until:
                break
        work.delivery = None
        return found

    def _decide_safely(self, delivery: Delivery, error: BaseException) -> Outcome:
        try:
            return self.decide(delivery, error)
        except BaseException as failure:  # noqa: BLE001 - a bug of ours
            bug = failure
            self._hooks.notify(lambda hook: hook.failed("processor", bug))
            return self.decide(delivery, bug)

    def _process_watched(self, delivery: Delivery, found: SliceResult) -> None:
        message = receive(delivery, self._decoders)
        began = Clock.monotonic()
        context = in_work_here(delivery).new_context()
        outcome, trace_id = context.run(self._call_watched, message, delivery)
        if outcome is not ACK:
            found.end(delivery, outcome)
        if trace_id is not None:
            found.exemplars.append((Clock.monotonic() - began, trace_id))

    def process(self, delivery: Delivery) -> tuple[Outcome, str | None]:
        """Run a sync handler once; return its outcome and the trace to show for it."""
        if self._max_age and self._is_expired(delivery):
            return EXPIRED, None
        message = receive(delivery, self._decoders)
        scope = self._environment.thread_scope()
        if scope.is_needed:
            scope.before()
        try:
            context = in_work_here(delivery).new_context()
            return context.run(self._call, message, delivery)
        finally:
            if scope.is_needed:
                end_scope(scope, self._hooks)

    def _call_bare(
        self, message: Message[Any], delivery: Delivery
    ) -> tuple[Outcome, str | None]:
        try:
            result = self._handler(message)
            if result is not None:
                refuse_unfinished(result)
        except BaseException as error:  # noqa: BLE001 - it must not end our thread
            return self.decide(delivery, error), None
        return ACK, None

    def _call_watched(
        self, message: Message[Any], delivery: Delivery
    ) -> tuple[Outcome, str | None]:
        watches = self._hooks.attempting(self._attempt([message], [delivery]))
        outcome, _ = self._call_bare(message, delivery)
        self._hooks.attempted(watches, [outcome])
        return outcome, next((w.trace_id for _, w in watches if w.trace_id), None)

    async def process_async(self, delivery: Delivery) -> tuple[Outcome, str | None]:
        """Run an async handler once, in the context of the calling task."""
        if self._max_age and self._is_expired(delivery):
            return EXPIRED, None
        message = receive(delivery, self._decoders)
        enter(InWork(delivery))
        await self._environment.before_async_handler()
        watches = self._hooks.attempting(self._attempt([message], [delivery]))
        process = current()
        try:
            outcome = await self._await_handler(message, delivery)
            end_if_forked(process, partial(error_of, outcome))
        except asyncio.CancelledError:
            self._hooks.attempted(watches, [CUT_OFF])
            raise
        finally:
            try:
                await self._environment.after_async_handler()
            except Exception as error:  # noqa: BLE001 - as in end_scope
                report_environment(error, self._hooks)
        self._hooks.attempted(watches, [outcome])
        return outcome, next((w.trace_id for _, w in watches if w.trace_id), None)

    async def _await_handler(
        self, message: Message[Any], delivery: Delivery
    ) -> Outcome:
        limit = asyncio.timeout(self._consumer.timeout)
        try:
            async with limit:
                result = await self._handler(message)
            if result is not None:
                refuse_unfinished(result)
        except TimeoutError as error:
            if not limit.expired():
                return self.decide(delivery, error)
            late = HandlerTimeoutError(
                f"cancelled after {self._consumer.timeout} s, its timeout"
            )
            return self.decide(delivery, late, Verdict.TIMEOUT)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the loop is being stopped, or the handler cancelled itself
            return self.decide(delivery, error)
        except BaseException as error:  # noqa: BLE001 - it must not end the loop
            return self.decide(delivery, error)
        return ACK

    def process_batch(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Run a batch handler once, and on failure again for each member alone.

        Members are tried alone at once and within the same attempt, so one bad row is
        retried, and in the end dead-lettered, alone.
        """
        expired = [self._is_expired(delivery) for delivery in deliveries]
        fresh = [
            delivery
            for delivery, old in zip(deliveries, expired, strict=True)
            if not old
        ]
        outcomes = iter(self._run_batch(fresh) if fresh else ())
        return [EXPIRED if old else next(outcomes) for old in expired]

    def _run_batch(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        process = current()
        error = self._call_batch(deliveries)
        end_if_forked(process, lambda: error)
        if error is None:
            return [ACK] * len(deliveries)
        if len(deliveries) == 1 or issubclass(type(error), BatchFailed | RetryLater):
            outcomes = self._outcomes_of(deliveries, error)
            return self._run_innocent(deliveries, outcomes)
        self._hooks.notify(
            lambda hook: hook.batch_failed(
                self._broker, self._consumer.name, len(deliveries), error
            )
        )
        return [self._run_batch([delivery])[0] for delivery in deliveries]

    def _run_innocent(
        self, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]
    ) -> list[Outcome]:
        """Run those again that a BatchFailed did not name, if nothing is left of them.

        Its transaction was rolled back with all that they had done.
        """
        rest = [
            delivery
            for delivery, outcome in zip(deliveries, outcomes, strict=True)
            if outcome is ACK
        ]
        if not (self._is_rolled_back and 0 < len(rest) < len(deliveries)):
            return list(outcomes)
        again = iter(self._run_batch(rest))
        return [next(again) if outcome is ACK else outcome for outcome in outcomes]

    def _call_batch(self, deliveries: Sequence[Delivery]) -> BaseException | None:
        messages = [receive(delivery, self._decoders) for delivery in deliveries]
        scope = self._environment.thread_scope()
        try:
            if scope.is_needed:
                scope.before()
            handler_context().run(self._call_batch_watched, messages, deliveries)
        except BaseException as error:  # noqa: BLE001 - as in _call_bare
            return error
        finally:
            if scope.is_needed:
                end_scope(scope, self._hooks)
        return None

    def _call_batch_watched(
        self, messages: list[Message[Any]], deliveries: Sequence[Delivery]
    ) -> None:
        watches = self._hooks.attempting(self._attempt(messages, deliveries))
        outcomes: list[Outcome] = [ACK] * len(deliveries)
        try:
            result = self._handler(messages)
            if result is not None:
                refuse_unfinished(result)
        except BaseException as error:
            outcomes = self._outcomes_of(deliveries, error)
            raise
        finally:
            self._hooks.attempted(watches, outcomes)

    def _outcomes_of(
        self, deliveries: Sequence[Delivery], error: BaseException
    ) -> list[Outcome]:
        if issubclass(type(error), BatchFailed):
            return self._blame(deliveries, cast("BatchFailed", error))
        return [self.decide(delivery, error) for delivery in deliveries]

    def _blame(
        self, deliveries: Sequence[Delivery], failed: BatchFailed
    ) -> list[Outcome]:
        ids = [delivery.message.id for delivery in deliveries]
        unknown = failed.errors.keys() - set(ids)
        if not failed.errors and self._is_rolled_back:
            return [self.decide(delivery, failed) for delivery in deliveries]
        if unknown:
            # Which of them failed is not known, and none must be lost.
            shown = printable(repr(min(unknown)))
            error = ConfigurationError(
                f"BatchFailed names {shown}, the id of no message in the batch: write "
                "BatchFailed({message.id: error, ...}).",
                consumer=self._consumer.name,
            )
            return [self.decide(delivery, error) for delivery in deliveries]
        return [
            self.decide(delivery, failed.errors[name]) if name in failed.errors else ACK
            for delivery, name in zip(deliveries, ids, strict=True)
        ]

    def decide(
        self,
        delivery: Delivery,
        error: BaseException,
        verdict: Verdict = Verdict.ERROR,
    ) -> Outcome:
        """Return the outcome of an attempt that raised this; pure but for jitter.

        Never raises: an error whose class cannot be asked what it is, is the last one.
        """
        try:
            return self._choose_outcome(delivery, error, verdict)
        except BaseException as failure:  # noqa: BLE001 - a class may answer with anything
            bug = failure
            self._hooks.notify(lambda hook: hook.failed("processor", bug))
            return DeadLettered(error, verdict)

    def _choose_outcome(
        self, delivery: Delivery, error: BaseException, verdict: Verdict
    ) -> Outcome:
        kind = type(error)  # which no class can hide, as it may what isinstance asks
        if issubclass(kind, RetryLater):
            wanted = max(cast("RetryLater", error).seconds, MIN_RETRY_LATER)
            pause = min(wanted, self._longest_pause)
            return RetryAfter(pause, None, times=delivery.postponed + 1)
        if issubclass(kind, Reject | DecodeError):
            return DeadLettered(error, Verdict.REJECTED)
        delay = self._consumer.retry.delay_after(delivery.attempt, error)
        if delay is None:
            return DeadLettered(error, verdict)
        return RetryAfter(min(delay, self._longest_pause), error, verdict)

    def _is_expired(self, delivery: Delivery) -> bool:
        if not self._max_age:
            return False
        message = delivery.message
        return message.age - message.delay > self._max_age

    def _attempt(
        self, messages: list[Message[Any]], deliveries: Sequence[Delivery]
    ) -> Attempt:
        waited = Clock.monotonic() - min(delivery.available for delivery in deliveries)
        return Attempt(
            self._broker,
            self._backend,
            self._consumer,
            messages,
            deliveries[0].attempt,
            max(0.0, waited),
        )
