"""The Django app: ready() registers and validates, and starts nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import request_started, setting_changed
from django.utils.autoreload import autoreload_started

from django_gomq import site
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import ConfigurationError
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.process import role

logger = logging.getLogger("gomq.start")


class GomqConfig(AppConfig):
    """django-gomq: an observable event bus."""

    name = "django_gomq"
    label = "gomq"
    verbose_name = "Event bus"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Read the settings, import consumers, make brokers.

        Starts no thread, opens no socket and runs no query. Raises ConfigurationError
        for what cannot work, but where the command is to report that.
        """
        from django_gomq import checks  # noqa: F401, PLC0415 - registers itself

        role.note_setup()
        is_reporting = role.reports_mistakes()
        try:
            site.set_up()
            if not is_reporting:  # else a check tells each
                site.tell_wrong_events()
        except ConfigurationError as error:
            if not is_reporting:
                raise
            site.brokers.set_up(None, failure=error)
        setting_changed.connect(_note_setting, dispatch_uid="django_gomq")
        site.install_coordinator()
        if role.starts_by_itself():
            for signal in (autoreload_started, request_started):
                signal.connect(_start_servers, dispatch_uid="django_gomq")
        if any(broker.spills for broker in site.brokers.values()):
            request_started.connect(_start_spilling, dispatch_uid="django_gomq.spill")
        _answer_probes_first()


_PROBES: Final = "django_gomq.middleware.ProbeMiddleware"


def _answer_probes_first() -> None:
    """Put our middleware above the others, if the site has not placed it itself."""
    if _PROBES not in settings.MIDDLEWARE:
        settings.MIDDLEWARE = [_PROBES, *settings.MIDDLEWARE]


def _start_servers(**signal: object) -> None:
    """Start the brokers whose consumers run here without an emit."""
    if site.brokers.site is not None:
        _start_if(site.brokers.site.starts_by_itself)


def _start_spilling(**signal: object) -> None:
    """Start the brokers whose consumers may have left something in the database.

    They go on with it from the first request on: no emit may come.
    """
    if site.brokers.site is not None:
        _start_if(site.brokers.site.goes_on)


def _start_if(is_to_run: Callable[[Broker], bool]) -> None:
    """Set up and start such brokers that do not run yet.

    Blocks for their servers; what fails is logged, and tried again at a next request.
    """
    for broker in site.brokers.values():
        if broker.is_started or not is_to_run(broker):
            continue
        try:
            broker.setup()
            broker.start()
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            write_log(
                logger,
                logging.ERROR,
                "Consumers of broker %r do not run yet; the next request tries again%s",
                broker.alias,
                _problems(broker),
                fields={"gomq_broker": broker.alias},
                error=error,
            )


def _problems(broker: Broker) -> str:
    """Return what is wrong with a server, where it can be asked."""
    try:
        return "".join(f". {problem}" for problem in broker.check_server())
    except Exception:  # noqa: BLE001 - the error that is told says the same
        return ""


def _note_setting(*, setting: str, **signal: Any) -> None:
    if setting == "GOMQ":
        site.renew()
