"""How operators want consumers to be: said once, done by every process, and audited."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Model
from django.utils.module_loading import import_string

from django_gomq.bus.backend import ConsumerState
from django_gomq.bus.channels.permits import check_capacity
from django_gomq.bus.errors import ConfigurationError, did_you_mean
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.site import Site, brokers

from .table import database_of
from .viewing import Desired, View, view_of

audit: Final = logging.getLogger("gomq.audit")

_CHANGE: Final = 2  # the flag of Django's log


class Operator(msgspec.Struct, frozen=True):
    """Who acts: a user of the site, or somebody at a terminal."""

    name: str
    user: AbstractBaseUser | None = None

    @classmethod
    def of(cls, user: AbstractBaseUser) -> Operator:
        """Return a user as the operator."""
        return cls(user.get_username(), user)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far what is wanted of a consumer is so."""

    reached: int
    """In so many processes it is."""
    processes: int
    """So many are known to run the consumer."""
    silent: int
    """So many others have not told lately what they do, or were killed."""

    @property
    def is_complete(self) -> bool:
        """Whether it is so in all that there may be, and there are any."""
        return 0 < self.processes == self.reached and not self.silent


def brokers_of(consumer: str, broker: str | None = None) -> Sequence[str]:
    """Return the brokers that have a consumer, or the one that is meant, as a list.

    Raises ConfigurationError where none has, or that one has not.
    """
    site = _site()
    if broker is not None:
        brokers[broker]  # raises what says which there are
    known = {alias: _names(site, alias) for alias in site.brokers}
    found = [
        alias
        for alias, names in known.items()
        if consumer in names and broker in (None, alias)
    ]
    if not found:
        names = sorted({name for several in known.values() for name in several})
        where = "No broker" if broker is None else f"Broker {broker!r}"
        hint = did_you_mean(consumer, names) or f"; there are {', '.join(names)}."
        verb = "has a" if broker is None else "has no"
        raise ConfigurationError(
            f"{where} {verb} consumer {consumer!r}{hint}", consumer=consumer
        )
    return found


def desire(
    broker: str, consumer: str, state: ConsumerState, operator: Operator
) -> None:
    """Have a consumer be so in every process within seconds, and where one starts.

    What ``state`` has None for stays as it was wanted. Written to the logger
    ``gomq.audit`` always, and to Django's log of actions where there is one and the
    operator is a user. Blocks; raises what the database or the server raises, and
    ConfigurationError for an unknown consumer, a capacity that is none, and where
    nobody could keep it, as the migrations were not applied.
    """
    site = _site()
    brokers_of(consumer, broker)
    if state.capacity is not None:
        check_capacity(state.capacity)
    view, is_kept = view_of(site), site.capabilities[broker].desired_state
    if view is None and not is_kept:
        raise ConfigurationError(
            f"Nothing can keep what is wanted of {consumer!r} for all processes: run "
            "manage.py migrate gomq.",
            consumer=consumer,
            broker=broker,
        )
    if is_kept:
        site.brokers[broker].backend.desire(consumer, state)
        _tell(broker, consumer, state, operator)  # also if the copy below fails
    if view is not None:
        wanted = Desired(
            paused=state.paused, capacity=state.capacity, changed_by=operator.name[:150]
        )
        view.desire((broker, consumer), wanted)
    if not is_kept:
        _tell(broker, consumer, state, operator)


def progress(broker: str, consumer: str) -> Progress | None:
    """Return how far what is wanted is so; None where no process tells what it does.

    Has processes tell it for some seconds. Blocks; raises what the database raises.
    """
    view = view_of(_site())
    if view is None:
        return None
    view.watch()
    wanted = view.desired().get((broker, consumer), Desired())
    return _progress(view, broker, consumer, wanted)


def _progress(view: View, broker: str, consumer: str, wanted: Desired) -> Progress:
    held = [
        holds
        for process in view.processes()
        if (holds := process.holds.consumers.get(broker, {}).get(consumer)) is not None
    ]
    done = [
        holds
        for holds in held
        if wanted.paused in (None, bool(holds.paused))
        and wanted.capacity in (None, holds.capacity)
    ]
    return Progress(reached=len(done), processes=len(held), silent=view.count_silent())


def _site() -> Site:
    if brokers.site is None:
        brokers["default"]  # raises what says why there is none
    assert brokers.site is not None  # noqa: S101 - else that has raised
    return brokers.site


def _names(site: Site, alias: str) -> set[str]:
    return {consumer.name for consumer in site.consumers_of(alias) if consumer.enabled}


# ------------------------------------------------------------ who did what


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody did to a consumer, as Django's log has it."""

    user: str
    text: str
    time: datetime


def latest_acts(broker: str, consumer: str, most: int) -> list[Act] | None:
    """Return the latest acts on a consumer, the newest first.

    None where there is no log of them to look at: without Django's admin, and where the
    migrations were not applied. Blocks; raises what the database raises.
    """
    if view_of(_site()) is None or not apps.is_installed("django.contrib.admin"):
        return None
    row = _row(broker, consumer)
    if row is None:
        return []
    entry = import_string("django.contrib.admin.models.LogEntry")
    types = apps.get_model("contenttypes", "ContentType").objects
    found = entry.objects.filter(
        content_type=types.get_for_model(type(row)), object_id=str(row.pk)
    )
    newest = found.select_related("user").order_by("-action_time")[:most]
    return [
        Act(
            user=done.user.get_username(),
            text=done.change_message,
            time=done.action_time,
        )
        for done in newest
    ]


def _row(broker: str, consumer: str) -> Model | None:
    rows = apps.get_model("gomq", "Consumer").objects.using(database_of(_site()))
    found: Model | None = rows.filter(broker=broker, consumer=consumer).first()
    return found


def _tell(broker: str, consumer: str, state: ConsumerState, operator: Operator) -> None:
    done = []
    if state.paused is not None:
        done.append("paused" if state.paused else "resumed")
    if state.capacity is not None:
        done.append(f"resized to {state.capacity}")
    text = " and ".join(done)
    write_log(
        audit,
        logging.INFO,
        "%s has %s consumer %s of broker %s, in every process",
        operator.name,
        text,
        consumer,
        broker,
        fields={
            "gomq_operator": operator.name,
            "gomq_consumer": consumer,
            "gomq_broker": broker,
            "gomq_paused": state.paused,
            "gomq_capacity": state.capacity,
        },
    )
    if operator.user is not None and apps.is_installed("django.contrib.admin"):
        model, row = apps.get_model("gomq", "Consumer"), _row(broker, consumer)
        entry = import_string("django.contrib.admin.models.LogEntry")
        types = apps.get_model("contenttypes", "ContentType").objects
        entry.objects.create(
            user_id=operator.user.pk,
            content_type=types.get_for_model(model),
            object_id="" if row is None else str(row.pk),
            object_repr=consumer[:200],
            action_flag=_CHANGE,
            change_message=f"{text.capitalize()} in every process.",
        )
