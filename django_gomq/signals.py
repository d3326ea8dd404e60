"""Django signals to events: emit_model_events() and emit_on_signal()."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from django.apps import apps
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.dispatch import Signal

from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.event import Event
from django_gomq.bus.message import validate_type
from django_gomq.emit import emit
from django_gomq.options import EmitOptions

ModelData = Callable[[Any], Any]
SignalData = Callable[..., Any]

_M2M_CHANGES: Final = frozenset({"post_add", "post_remove", "post_clear"})


def emit_model_events(
    model: str | type[Model],
    *,
    created: str | None = None,
    updated: str | None = None,
    saved: str | None = None,
    deleted: str | None = None,
    m2m: Mapping[str, str] | None = None,
    data: ModelData | None = None,
    **options: Any,
) -> None:
    """Emit an event for each change of a model; call it in ``AppConfig.ready()``.

    ``model`` is a class or ``"app_label.ModelName"``. ``saved`` is emitted for both
    creations and updates. ``m2m`` maps names of many-to-many fields to event types; a
    change from the far side, ``tag.records.add(...)``, is one event for each instance
    of ``model`` that it changed.
    ``data(instance)`` is called inside the signal, so the event says what was true
    then; it returns JSON data, or an Event whose type takes the place of the name's.
    Without it the data is ``{"pk": ...}``. Events wait for the commit of the signal's
    database. Fixtures being loaded (``raw=True``) emit nothing, but for many-to-many
    fields before Django 6.1, which does not tell there. Other options are those of
    ``emit``. Bulk operations send no signals in Django, and so no events.

    Raises ConfigurationError for an unknown model or field, or a wrong event type.
    """
    _check_options(options)
    model_class = _model(model)
    names = [created, updated, saved, deleted, *(m2m or {}).values()]
    given = [validate_type(name) for name in names if name is not None]
    if not given:
        raise ConfigurationError(
            f"emit_model_events({model_class._meta.label!r}) names no event: give "
            "created=, updated=, saved=, deleted= or m2m=."
        )
    send = _Sender(data or _only_pk, options)
    if created or updated or saved:
        _connect_saves(model_class, send, created, updated, saved)
    if deleted:
        _connect_deletes(model_class, send, deleted)
    for field, name in (m2m or {}).items():
        _connect_m2m(model_class, send, field, name)


def emit_on_signal(
    signal: Signal,
    event: str,
    *,
    data: SignalData | None = None,
    sender: Any = None,
    **options: Any,
) -> None:
    """Emit an event whenever a signal is sent; call it in ``AppConfig.ready()``.

    ``data(sender, **kwargs)`` makes JSON data, or an Event, of what the signal was
    sent with; without it the data is empty. So a reusable app sends its signal and
    needs no import of django_gomq. Other options are those of ``emit``.

    Raises ConfigurationError for a wrong event type. An error in ``data`` reaches the
    sender of the signal.
    """
    _check_options(options)
    validate_type(event)
    make = data or _nothing

    def receive(sender: Any, **kwargs: Any) -> None:
        kwargs.pop("signal", None)
        _emit_made(event, make(sender, **kwargs), options)

    signal.connect(
        receive,
        sender=sender,
        weak=False,
        dispatch_uid=("django_gomq", event, id(signal), id(sender)),
    )


def _check_options(options: Mapping[str, Any]) -> None:
    known = EmitOptions.__annotations__.keys()
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ConfigurationError(
            f"emit() has no option {', '.join(unknown)}; there are "
            f"{', '.join(sorted(known))}."
        )


class _Sender:
    """Makes the data of one model's events inside the signal, and emits it."""

    def __init__(self, data: ModelData, options: Mapping[str, Any]) -> None:
        self._data = data
        self._options = options

    def __call__(self, event: str, instance: Any, using: str) -> None:
        options = {"using": using, **self._options}
        _emit_made(event, self._data(instance), options)


def _emit_made(event: str, made: Any, options: Mapping[str, Any]) -> None:
    if isinstance(made, Event):
        emit(made, **options)
    else:
        emit(event, made, **options)


def _only_pk(instance: Model) -> dict[str, Any]:
    return {"pk": instance.pk}


def _nothing(sender: Any, **kwargs: Any) -> dict[str, Any]:
    return {}


def _model(model: str | type[Model]) -> type[Model]:
    if not isinstance(model, str):
        return model
    try:
        return apps.get_model(model)
    except (LookupError, ValueError) as error:
        raise ConfigurationError(
            f"emit_model_events({model!r}): {error} Write 'app_label.ModelName', and "
            "call it in AppConfig.ready()."
        ) from error


def _connect_saves(
    model: type[Model],
    send: _Sender,
    created: str | None,
    updated: str | None,
    saved: str | None,
) -> None:
    def receive(instance: Any, using: str, **signal: Any) -> None:
        if signal["raw"]:
            return
        for event in (created if signal["created"] else updated, saved):
            if event is not None:
                send(event, instance, using)

    uid = ("django_gomq", "save", created, updated, saved)
    post_save.connect(receive, sender=model, weak=False, dispatch_uid=uid)


def _connect_deletes(model: type[Model], send: _Sender, event: str) -> None:
    def receive(instance: Any, using: str, **signal: Any) -> None:
        send(event, instance, using)

    uid = ("django_gomq", "delete", event)
    post_delete.connect(receive, sender=model, weak=False, dispatch_uid=uid)


def _connect_m2m(model: type[Model], send: _Sender, field: str, event: str) -> None:
    try:
        through = getattr(model, field).through
    except AttributeError as error:
        raise ConfigurationError(
            f"emit_model_events({model._meta.label!r}): {field!r} is no many-to-many "
            "field."
        ) from error

    def receive(instance: Any, action: str, using: str, **signal: Any) -> None:
        # Django 5.2 does not say "raw" for this signal, 6.1 does.
        if signal.get("raw"):
            return
        if signal["reverse"]:
            changed = _changed_from_far(model, field, instance, action, using, signal)
        else:
            changed = [instance] if _is_change(action, signal["pk_set"]) else []
        for name in changed:
            send(event, name, using)

    uid = ("django_gomq", "m2m", field, event)
    m2m_changed.connect(receive, sender=through, weak=False, dispatch_uid=uid)


def _is_change(action: str, pk_set: Collection[Any] | None) -> bool:
    return action in _M2M_CHANGES and (pk_set is None or len(pk_set) > 0)


def _changed_from_far(
    model: type[Model],
    field: str,
    instance: Any,
    action: str,
    using: str,
    signal: Mapping[str, Any],
) -> Iterable[Any]:
    """Return which of the model's instances ``tag.records.add(...)`` changed.

    The signal's instance is the tag then, and it names the records by their keys. A
    clear names none, and tells before it happens.
    """
    related = model._base_manager.using(using)
    if action == "pre_clear":
        return related.filter(**{field: instance.pk}).order_by("pk")
    if action != "post_clear" and _is_change(action, signal["pk_set"]):
        return related.filter(pk__in=signal["pk_set"]).order_by("pk")
    return []
