"""What is connected to the signals of Django, and how it is asked for."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Unpack

from django.db.models import Model
from django.db.models.signals import (
    ModelSignal,
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
)
from django.dispatch import Signal

from django_gomq.bus.errors import ConfigurationError, MessageError
from django_gomq.bus.message import NO_HEADERS, Message, validate, validate_type
from django_gomq.options import EmitOptions, choose

from .event_source import EventSource
from .senders import ManyToMany, classes_of, deleted_as, find_model

ModelData = Callable[[Any], Any]
SignalData = Callable[..., Any]


def emit_model_events(
    model: str | type[Model],
    *,
    created: str | None = None,
    updated: str | None = None,
    saved: str | None = None,
    deleted: str | None = None,
    m2m: Mapping[str, str] | None = None,
    data: ModelData | None = None,
    **options: Unpack[EmitOptions],
) -> None:
    """Emit an event for each change of a model; call it in ``AppConfig.ready()``.

    ``model`` is a class or ``"app_label.ModelName"``; its proxies and what inherits
    from it count too, and an abstract model stands for all that do. ``saved`` is
    emitted for both creations and updates. ``m2m`` maps many-to-many fields, or their
    accessors from the other side, to event types; a change from the far side,
    ``tag.records.add(...)``, is one event for each instance of ``model`` that changed.
    ``data(instance)`` is called inside the signal, before a deletion, so the event says
    what was true then; it returns JSON data, or an Event whose type takes the place of
    the name's. Without it the data is ``{"pk": ...}``. Where ``data`` fails, the row is
    saved all the same, and the event is logged as an error and counted as refused
    (``not_made``). Events wait for the commit of the signal's database. Fixtures being
    loaded (``raw=True``) emit nothing, but for many-to-many fields before Django 6.1,
    which does not tell there. Other options are those of ``emit``. Bulk operations send
    no signals in Django, and so no events.

    Raises ConfigurationError for an unknown model, field or option, a wrong event type,
    and where the same event was registered with other data or options.
    """
    found = find_model(model, "emit_model_events")
    own = {"created": created, "updated": updated, "saved": saved, "deleted": deleted}
    _check_options("emit_model_events", [*own, "m2m", "data"], options)
    events = {action: validate_type(name) for action, name in own.items() if name}
    fields = {field: validate_type(name) for field, name in (m2m or {}).items()}
    if not events and not fields:
        raise ConfigurationError(
            f"emit_model_events({found._meta.label!r}) names no event: give created=, "
            "updated=, saved=, deleted= or m2m=."
        )
    if saved and saved in (created, updated):
        raise ConfigurationError(
            f"emit_model_events({found._meta.label!r}): one change would be two events "
            f"{saved!r}: saved= tells of creations and updates already."
        )
    if found._meta.auto_created:
        raise ConfigurationError(
            f"{found._meta.label} is the table of a many-to-many field: use m2m= on "
            "the model that has the field."
        )
    _check_data("emit_model_events", data, "instance", all_of_it=True)
    _connect_all(
        [
            *_of_saves(found, events, data, options),
            *_of_deletions(found, events, data, options),
            *_of_relations(found, fields, data, options),
        ]
    )


def emit_on_signal(
    signal: Signal,
    event: str,
    *,
    data: SignalData | None = None,
    sender: Any = None,
    **options: Unpack[EmitOptions],
) -> None:
    """Emit an event whenever a signal is sent; call it in ``AppConfig.ready()``.

    ``data(sender, **kwargs)`` makes JSON data, or an Event, of what the signal was
    sent with; without it the data is empty. So a reusable app sends its signal and
    needs no import of django_gomq. Where ``data`` fails, who sent the signal goes on,
    and the event is logged as an error and counted as refused (``not_made``). Other
    options are those of ``emit``.

    Raises ConfigurationError for a wrong event type or option, for a sender that sends
    no signals, and where the same event was registered with other data or options.
    """
    if not isinstance(signal, Signal):
        raise ConfigurationError(
            f"emit_on_signal({signal!r:.100}): that is no django.dispatch.Signal."
        )
    _check_options("emit_on_signal", ["data", "sender"], options)
    validate_type(event)
    _check_data("emit_on_signal", data, "sender", all_of_it=False)
    source = EventSource(event, data, options)
    _connect_all([(signal, _sender(signal, sender), _OnSignal("", source))])


def _sender(signal: Signal, sender: Any) -> Any:
    if sender is None or not isinstance(signal, ModelSignal):
        return sender
    model = find_model(sender, "emit_on_signal")
    if model._meta.abstract:
        raise ConfigurationError(
            f"emit_on_signal(sender={model.__name__}): Django sends no signal of an "
            "abstract model: name one that inherits from it, or use "
            "emit_model_events()."
        )
    return model


def _check_options(caller: str, own: list[str], options: EmitOptions) -> None:
    known = [*own, *EmitOptions.__annotations__]
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}? There are" if close else "there are"
            raise ConfigurationError(
                f"{caller}() has no option {name}; {hint} {', '.join(known)}."
            )
    chosen = choose(options)
    headers: Any = chosen.headers or NO_HEADERS
    if isinstance(headers, Mapping):
        headers = dict(headers)
    delay = chosen.delay or 0.0
    message: Message[Any] = Message(
        "page.viewed", b"", chosen.key, chosen.priority, headers, delay
    )
    try:
        validate(message, max_body_bytes=0)
    except MessageError as error:
        raise ConfigurationError(f"{caller}(): {error}") from error


def _check_data(caller: str, data: Any, argument: str, *, all_of_it: bool) -> None:
    if data is None:
        return
    if not callable(data) or inspect.iscoroutinefunction(data):
        kind = "an async function" if callable(data) else f"{data!r:.100}"
        raise ConfigurationError(
            f"{caller}(): data is {kind}; give a function that takes the {argument} "
            "and returns the data."
        )
    try:
        signature = inspect.signature(data)
        (signature.bind if all_of_it else signature.bind_partial)(None)
    except ValueError:
        return  # of a built-in
    except TypeError as error:
        raise ConfigurationError(
            f"{caller}(): data= is called with the {argument}: {error}."
        ) from error


class _Receiver:
    """What is connected to a signal, for one event of it."""

    def __init__(self, action: str, source: EventSource) -> None:
        self.source = source
        self.uid = ("django_gomq", action, source.event)
        self.senders: list[Any] = []

    def connect(self, signal: Signal, sender: Any) -> None:
        """Have this called for what the sender sends."""
        signal.connect(self, sender=sender, weak=False, dispatch_uid=self.uid)
        self.senders.append(sender)

    def __call__(self, sender: Any, **signal: Any) -> None:
        """Emit the event, if the signal is about it."""
        raise NotImplementedError


_Connection = tuple[Signal, Any, _Receiver]


def _connect_all(wanted: Iterable[_Connection]) -> None:
    """Connect all or, where one contradicts an earlier one, none."""
    connections = list(wanted)
    for signal, sender, receiver in connections:
        earlier = _connected(signal, sender, receiver.uid)
        if earlier is not None and not earlier.source.is_same(receiver.source):
            of = getattr(sender, "__name__", None)
            raise ConfigurationError(
                f"Event {receiver.source.event!r}{f' of {of}' if of else ''} was "
                f"registered before with other data or options ({earlier.source}), and "
                f"is again ({receiver.source}): keep one of them, or give them "
                "different event types."
            )
    for signal, sender, receiver in connections:
        earlier = _connected(signal, sender, receiver.uid)
        if earlier is None:
            receiver.connect(signal, sender)
        else:
            earlier.source = receiver.source  # of the app as it is now


def _connected(signal: Signal, sender: Any, uid: object) -> _Receiver | None:
    """Return what was connected so: Django would leave a second one out."""
    for key, receiver, *_ in signal.receivers:
        if key == (uid, id(sender)):
            found: _Receiver = receiver
            return found
    return None


def events_of_models() -> Iterator[tuple[type[Model], EventSource]]:
    """Yield each model whose changes are events, with each of its events."""
    found: dict[tuple[Any, EventSource], None] = {}  # several signals share a source
    for signal in (post_save, post_delete, m2m_changed):
        for _, receiver, *_ in signal.receivers:
            if isinstance(receiver, _Receiver):
                found.update(
                    ((sender, receiver.source), None) for sender in receiver.senders
                )
    yield from (pair for pair in found if pair[0] is not None)


class _OnSignal(_Receiver):
    def __call__(self, sender: Any, **signal: Any) -> None:
        signal.pop("signal", None)
        self.source.tell(sender, self.source.make(sender, **signal))


class _OnSave(_Receiver):
    def __init__(self, action: str, source: EventSource) -> None:
        super().__init__(action, source)
        self._created = {"created": True, "updated": False}.get(action)

    def __call__(self, sender: Any, **signal: Any) -> None:
        if not signal["raw"] and self._created in (None, signal["created"]):
            self.source.emit(signal["instance"], signal["using"])


def _of_saves(
    model: type[Model],
    events: Mapping[str, str],
    data: ModelData | None,
    options: Mapping[str, Any],
) -> Iterator[_Connection]:
    for action, event in events.items():
        if action != "deleted":
            receiver = _OnSave(action, EventSource(event, data, options))
            for sender in classes_of(model):
                yield post_save, sender, receiver


class _OnDeletion(_Receiver):
    """Makes the data while the row, and what refers to it, can still be read."""

    def __init__(self, action: str, source: EventSource) -> None:
        super().__init__(action, source)
        self._made: dict[int, tuple[weakref.ref[Model], Any]] = {}

    def connect(self, signal: Signal, sender: Any) -> None:
        pre_delete.disconnect(sender=sender, dispatch_uid=self.uid)
        pre_delete.connect(self._make, sender=sender, weak=False, dispatch_uid=self.uid)
        super().connect(signal, sender)

    def _make(self, sender: Any, **signal: Any) -> None:
        instance, key = signal["instance"], id(signal["instance"])
        made = self.source.make_of(instance, signal["using"])
        # A deletion that fails tells nothing more.
        forget = weakref.ref(instance, lambda _: self._made.pop(key, None))
        self._made[key] = forget, made

    def __call__(self, sender: Any, **signal: Any) -> None:
        instance, using = signal["instance"], signal["using"]
        _, made = self._made.pop(id(instance), (None, None))
        if made is None:  # somebody tells of a deletion of their own
            made = self.source.make_of(instance, using)
        self.source.tell(instance, made, using=using)


def _of_deletions(
    model: type[Model],
    events: Mapping[str, str],
    data: ModelData | None,
    options: Mapping[str, Any],
) -> Iterator[_Connection]:
    event = events.get("deleted")
    if event is not None:
        receiver = _OnDeletion("deleted", EventSource(event, data, options))
        for sender in deleted_as(model):
            yield post_delete, sender, receiver


class _OnRelation(_Receiver):
    def __init__(self, field: str, source: EventSource, relation: ManyToMany) -> None:
        super().__init__(f"{relation.label}.{field}", source)
        self._relation = relation

    def __call__(self, sender: Any, **signal: Any) -> None:
        # Django 5.2 does not say "raw" for this signal, 6.1 does.
        if not signal.get("raw"):
            for instance in self._relation.changed(**signal):
                self.source.emit(instance, signal["using"])


def _of_relations(
    model: type[Model],
    fields: Mapping[str, str],
    data: ModelData | None,
    options: Mapping[str, Any],
) -> Iterator[_Connection]:
    for field, event in fields.items():
        source = EventSource(event, data, options)
        relations: dict[Any, ManyToMany] = {}
        for sender in classes_of(model):
            relation = ManyToMany(sender, field)
            # Children share the table of their parent, which comes first.
            relations.setdefault(relation.through, relation)
        for through, relation in relations.items():
            yield m2m_changed, through, _OnRelation(field, source, relation)
