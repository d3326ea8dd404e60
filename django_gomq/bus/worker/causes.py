"""Which message a handler has in work, and how what it emits names it as its cause."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from threading import get_ident, local
from typing import Any, Final

from django_gomq.bus.message import CAUSATION, CORRELATION, Message, is_id
from django_gomq.bus.process.fork import handler_context


class InWork:
    """The message that a handler is at, told to what it emits by its context.

    A sync handler's holds on its own thread alone: what it has left running elsewhere
    would name a later message, as a handler thread has one for all it handles. An async
    handler has one of its own, which its tasks and threads share.
    """

    __slots__ = ("delivery", "new_context", "thread")

    def __init__(self, delivery: Any = None, thread: int | None = None) -> None:
        """``delivery`` may be a message; ``thread`` is the only one, None for any."""
        self.delivery = delivery
        self.thread = thread
        context = handler_context()
        context.run(enter, self)
        self.new_context: Final = context.copy
        """Returns a context of its own for one handler that is at this message."""


_in_work: ContextVar[InWork | None] = ContextVar("gomq_in_work", default=None)

enter: Final[Callable[[InWork], object]] = _in_work.set
"""Have this be what the current context is at."""
in_work: Final = _in_work.get
"""Returns what that is; None outside of handlers, and in those of batches."""


def in_work_here(delivery: Any) -> InWork:
    """Return what a sync handler on this thread is at."""
    return InWork(delivery, get_ident())


# A context in which a variable is set for each message would cost each 130 ns; what a
# variable of the thread's contexts refers to is changed in 10.
class _OfThread(local):
    def __init__(self) -> None:
        self.work = in_work_here(None)


_of_thread: Final = _OfThread()


def work_of_thread() -> InWork:
    """Return what the handlers of this thread are at, one after the other."""
    return _of_thread.work


def name_cause(message: Message[Any]) -> None:
    """Have a message that is emitted now name the message in work, where there is one.

    Its headers get that message's id as the cause, and the correlation id of that, or
    its id where it has none, unless the emitter gave one.
    """
    work = in_work()
    if work is None or work.delivery is None:
        return
    if work.thread is not None and work.thread != get_ident():
        return
    cause: Message[Any] = work.delivery.message
    cause_id = cause.id
    if not is_id(cause_id):  # made by hand: no envelope could carry it
        return
    correlation = message.correlation_id or cause.correlation_id or cause_id
    message.add_headers({CAUSATION: cause_id, CORRELATION: correlation})
