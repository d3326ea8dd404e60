"""From a broker to its backend: hooks watch each message, every refusal is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from .backend import Backend
from .counts import RefusalCounts
from .errors import NoConsumerError, PublishError
from .hook import Carry
from .hooks import CARRIED, Hooks
from .message import Message
from .timers import Deadline


class Handover:
    """Hands valid messages to a backend; thread-safe."""

    def __init__(
        self, broker: str, backend: Backend, hooks: Hooks, refusals: RefusalCounts
    ) -> None:
        self._broker = broker
        self._backend = backend
        self._backend_name = backend.name
        self._publish = backend.publish
        self._hooks = hooks
        # None where nobody calls publish_carrying: to ask takes 20 ns each time.
        self._carry = cast("Carry", hooks.carry)
        self._refusals = refusals

    def publish_carrying(self, message: Message[Any], timeout: float | None) -> None:
        """Publish one message of which the only watcher keeps nothing, or watched."""
        # The hot path of every publish and emit where traces are on.
        try:
            keeps_nothing = self._carry(message)
        except Exception:  # noqa: BLE001 - a hook's bug
            keeps_nothing = self._hooks.note_carrier()
        if keeps_nothing:
            self._publish(message, timeout)
        else:
            self.publish_watched(message, timeout)

    def publish_watched(
        self,
        message: Message[Any],
        timeout: float | None,
        parents: tuple[object, ...] = (),
    ) -> None:
        """Publish one message while the hooks watch."""
        hooks = self._hooks
        ends = hooks.before_publish(self._broker, self._backend_name, message, parents)
        if not ends:
            self._publish(message, timeout)
            return
        error: Exception | None = None
        try:
            self._publish(message, timeout)
        except Exception as raised:
            error = raised
            raise
        finally:
            hooks.after_publish(ends, error)

    def publish_many(
        self,
        messages: Sequence[Message[Any]],
        timeout: float | None,
        parents: Sequence[tuple[object, ...]] = (),
        answers: list[PublishError | None] | None = None,
    ) -> list[PublishError | None]:
        """Publish what can be published; see ``Broker.publish_many``.

        ``answers``, an empty list, has what is known so far if this is interrupted.
        """
        answers = [] if answers is None else answers
        try:
            if self._are_carried(messages, parents):
                self._backend.publish_into(answers, messages, timeout)
            else:
                self._publish_each(answers, messages, timeout, parents)
        finally:
            if any(answers):
                for message, answer in zip(messages, answers, strict=False):
                    if answer is not None:
                        self.refuse(message, answer)
        return answers

    def _are_carried(
        self, messages: Sequence[Message[Any]], parents: Sequence[tuple[object, ...]]
    ) -> bool:
        if parents:
            return all(one is CARRIED for one in parents)
        return self._hooks.carries_all(messages)

    def _publish_each(
        self,
        answers: list[PublishError | None],
        messages: Sequence[Message[Any]],
        timeout: float | None,
        parents: Sequence[tuple[object, ...]],
    ) -> None:
        deadline = Deadline.after(timeout)
        for index, message in enumerate(messages):
            context = parents[index] if parents else ()
            try:
                if context is CARRIED:
                    self._publish(message, deadline.left())
                else:
                    self.publish_watched(message, deadline.left(), context)
                answers.append(None)
            except PublishError as error:
                answers.append(error)

    def refuse_all(self, messages: Sequence[Message[Any]], error: PublishError) -> None:
        """Count and report messages that were not taken for one reason."""
        for message in messages:
            self.refuse(message, error)

    def refuse(self, message: Message[Any], error: PublishError) -> None:
        """Count and report a message that was not taken."""
        event = message.type
        if isinstance(error, NoConsumerError):
            self._refusals.count_unconsumed(event)
            self._hooks.tell(lambda hook: hook.unconsumed(self._broker, event))
            return
        self._refusals.count_refused(event, error.code)
        self._hooks.tell(lambda hook: hook.refused(self._broker, event, error))
