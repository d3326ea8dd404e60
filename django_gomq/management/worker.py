"""``manage.py gomq worker``: run the consumers of brokers that have a server."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Final

import msgspec
from django.conf import settings
from django.core.management.base import CommandError
from django.db import connections

from django_gomq import site
from django_gomq.bus.broker import Broker
from django_gomq.bus.errors import PublishError
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.bus.registry import registry
from django_gomq.bus.stats import Remainder
from django_gomq.checks.recorded import Leftover, leftovers_in
from django_gomq.conf import Config, load
from django_gomq.process.role import is_reloaded, signal_timeout

from .processes import URGENT, drain_signals, supervise
from .reloading import CHANGED, run_anew, watch_code
from .removing import leftovers_of
from .servers import durable_brokers, refuse_problems
from .setup import unclaimed_of_site
from .subcommand import Write

logger = logging.getLogger("gomq.start")

HELP: Final = "Run the consumers of servers until SIGTERM or Ctrl-C."

LOOK_SECONDS: Final = 1.0
"""Between two status lines, and two looks at the parent or at a broken set-up."""
WARN_SECONDS: Final = 3600.0
"""Between two warnings of consumers that the code does not have."""
_LAST_PORT: Final = 2**16 - 1


class Address(msgspec.Struct, frozen=True):
    """Where metrics are served."""

    host: str
    port: int


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) <= _LAST_PORT:
        raise ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9464")
    return Address(host.strip("[]") or "127.0.0.1", int(port))


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise ArgumentTypeError(f"{text!r} is not a number of processes")
    return int(text)


def add_arguments(parser: ArgumentParser) -> None:
    """Add what runs, where, and in how many processes."""
    parser.add_argument(
        "--broker", action="append", metavar="ALIAS", help="only this broker"
    )
    parser.add_argument(
        "--consumers",
        metavar="NAMES",
        type=lambda text: [name for name in text.split(",") if name],
        help="only these consumers, with commas between their names",
    )
    parser.add_argument(
        "--processes", type=_count, default=1, metavar="N", help="so many (default: 1)"
    )
    parser.add_argument(
        "--metrics-addr",
        type=_address,
        metavar="HOST:PORT",
        help="serve metrics there; with N processes, on N ports from that one",
    )
    parser.add_argument(
        "--noreload",
        action="store_true",
        help="do not start anew when code changes, which DEBUG does",
    )


def run(options: Mapping[str, Any], write: Write) -> int:
    """Run until a signal; return 0 if everything that was taken was finished."""
    write = _to_whom_it_reads(write)
    count = options["processes"]
    reloads = settings.DEBUG and not options["noreload"] and count == 1
    if reloads and is_reloaded(os.environ):
        return _work(options, write, parent=os.getppid(), reloads=True)
    if not reloads and count == 1:
        return _work(options, write)
    _check(_choose(options))  # what is broken ends it, and is not tried for ever
    connections.close_all()  # a child must not share them
    if reloads:
        return run_anew(write)
    parent = os.getpid()
    return supervise(count, lambda: _work(options, write, parent), write)


def _check(chosen: Sequence[Broker]) -> None:
    for broker in chosen:
        refuse_problems(broker)
    if not any(broker.consumers or broker.backend.relays for broker in chosen):
        aliases = ", ".join(repr(broker.alias) for broker in chosen)
        raise CommandError(
            f"There is no consumer to run: no enabled one has events on {aliases}.",
            returncode=2,
        )


def _choose(options: Mapping[str, Any]) -> list[Broker]:
    """Take the options of the command line over the settings; return the brokers."""
    config = load(getattr(settings, "GOMQ", None))
    names, address = options["consumers"], options["metrics_addr"]
    if names is not None:
        config = _only(config, names)
    if address is not None:
        last = address.port + options["processes"] - 1
        if last > _LAST_PORT:
            raise CommandError(
                f"--metrics-addr: {options['processes']} processes need the ports up "
                f"to {last}, and the last one is {_LAST_PORT}.",
                returncode=2,
            )
        if not config.metrics.enabled:
            raise CommandError(
                "--metrics-addr: GOMQ['METRICS']['ENABLED'] is False.", returncode=2
            )
        if config.metrics.access == "staff":
            raise CommandError(
                "--metrics-addr: GOMQ['METRICS']['ACCESS'] is 'staff', and a port "
                "knows no users: make it 'token'.",
                returncode=2,
            )
        metrics = dataclasses.replace(
            config.metrics,
            port_range=(address.port, last),
            port_address=address.host,
        )
        config = msgspec.structs.replace(config, metrics=metrics)
    if names is not None or address is not None:
        site.use(config)
    return durable_brokers(options["broker"])


def _only(config: Config, names: Sequence[str]) -> Config:
    """Leave all other consumers out."""
    known = registry.names
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise CommandError(
            f"--consumers: there is no {', '.join(map(repr, unknown)) or 'name'}; "
            f"there are {', '.join(sorted(known)) or 'none'}.",
            returncode=2,
        )
    off = {
        name: {**config.consumers.get(name, {}), "enabled": False}
        for name in known
        if name not in names
    }
    return msgspec.structs.replace(config, consumers={**config.consumers, **off})


def _work(
    options: Mapping[str, Any],
    write: Write,
    parent: int | None = None,
    *,
    reloads: bool = False,
) -> int:
    """Work until a signal, or until the ``parent`` that started this is no more.

    Where it ``reloads``, until code changes, too.
    """
    is_child = parent is not None
    is_shown = options["is_terminal"] and (reloads or not is_child)
    with _listening(is_child=is_child) as stop:
        chosen = _choose(options)
        if reloads:
            watch_code(stop.change)
            if not _wait_until_set_up(chosen, stop, write):
                return CHANGED if stop.is_changed else 0
        else:
            _check(chosen)
        try:
            for broker in chosen:
                _start(broker)
                write(_served(broker))
                _warn_of(leftovers_of(broker))
            _warn_of_spilled()
            _watch(chosen, stop, parent, options["screen"].width if is_shown else 0)
            if is_shown:
                write("")
            write("Stopping: what was taken is finished first; Ctrl-C to stop at once.")
            left = _close(chosen)
        except KeyboardInterrupt:
            left = _close(chosen, 0.0)
        except CommandError:
            _close(chosen, 0.0)
            raise
    code = _report(left, write)
    return CHANGED if stop.is_changed else code


def _wait_until_set_up(chosen: Sequence[Broker], stop: _Stop, write: Write) -> bool:
    """Wait for what the developer still has to run; return False if it shall end."""
    told = None
    while True:
        try:
            _check(chosen)
        except CommandError as error:
            if error.returncode != 1:
                raise
            if str(error) != told:
                told = str(error)
                write(f"{told} It begins when that is done.")
        else:
            return True
        if stop.wait(LOOK_SECONDS):
            return False


def _close(
    chosen: Sequence[Broker], timeout: float | None = None
) -> Sequence[Remainder]:
    """Drain as long as who sent a signal may wait; return what was left."""
    current = site.brokers.site
    if timeout is None and current is not None:
        timeout = signal_timeout(current.config.drain_timeout)
    site.close(timeout)
    return [
        broker.close(0.0) for broker in chosen
    ]  # what it said, if it was broken off


def _start(broker: Broker) -> None:
    try:
        broker.start()
    except PublishError as error:
        raise CommandError(str(error), returncode=1) from error


def _warn_of(leftovers: Iterable[Leftover]) -> None:
    for left in leftovers:
        write_log(
            logger,
            logging.WARNING,
            "Consumer %s is recorded at broker %r and not in the code: %d messages "
            "wait for it, and more will (manage.py gomq setup --remove)",
            left.name,
            left.broker,
            left.waiting,
            fields={"gomq_broker": left.broker, "gomq_consumer": left.name},
        )


def _warn_of_spilled() -> None:
    for left in unclaimed_of_site():
        write_log(
            logger,
            logging.WARNING,
            "%d messages that %s of broker %r has spilled wait in database %r, and no "
            "code takes them back (manage.py gomq setup --remove)",
            left.waiting,
            left.name,
            left.broker,
            left.using,
            fields={"gomq_broker": left.broker, "gomq_consumer": left.name},
        )


def _served(broker: Broker) -> str:
    names = ", ".join(sorted(consumer.name for consumer in broker.consumers))
    backend = broker.backend
    relay = f"; forwards from database {backend.database!r}" if backend.relays else ""
    return (
        f"Broker {broker.alias!r} ({broker.backend_name}), process {os.getpid()}, "
        f"runs: {names or 'no consumer'}{relay}"
    )


class _Stop:
    """Whether a signal has asked for the end."""

    def __init__(self) -> None:
        self.is_asked = False
        self.is_changed = False
        """Whether it was a change of the code."""
        # Not an Event: its lock may be held by the very wait that a signal interrupts.
        self._asked: SimpleQueue[None] = SimpleQueue()

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Ask for a drain; handles a signal."""
        self.is_asked = True
        self._asked.put(None)

    def change(self) -> None:
        """Ask for a drain, as code has changed; from any thread."""
        self.is_changed = not self.is_asked
        self._asked.put(None)

    def insist(self, number: int, frame: FrameType | None) -> None:
        """Ask for a drain, or for its end where there is one; handles a signal."""
        if self.is_asked:
            signal.signal(number, signal.SIG_DFL)  # a third one ends the process
            raise KeyboardInterrupt
        self.ask(number, frame)

    def wait(self, timeout: float | None) -> bool:
        """Wait for a signal; return whether there was one."""
        try:
            self._asked.get(timeout=timeout)
        except Empty:
            return False
        return True


@contextmanager
def _listening(*, is_child: bool) -> Iterator[_Stop]:
    """Have SIGTERM ask for a drain, however often, and Ctrl-C twice for the end.

    A child gets SIGQUIT in the place of Ctrl-C; what comes after the end is for nobody.
    """
    stop = _Stop()
    urgent = URGENT if is_child else signal.SIGINT
    handlers = {**dict.fromkeys(drain_signals(), stop.ask), urgent: stop.insist}
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        yield stop
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_IGN if is_child else earlier)


def _watch(
    chosen: Sequence[Broker], stop: _Stop, parent: int | None, width: int
) -> None:
    """Wait for the signal, or the end of the parent; on a screen, show the work.

    Now and then tell again of the consumers that the code does not have.
    """
    looks = parent is not None or width
    show = _to_whom_it_reads(_rewrite)
    warned = time.monotonic()
    while not stop.wait(LOOK_SECONDS if looks else WARN_SECONDS):
        if time.monotonic() >= warned + WARN_SECONDS:
            warned = time.monotonic()
            _warn_again(chosen)
        if parent is not None and os.getppid() != parent:
            return
        if width:
            show(_status(chosen)[: width - 1])


def _warn_again(chosen: Sequence[Broker]) -> None:
    current = site.brokers.site
    if current is None:
        return
    for broker in chosen:
        # As of the latest sample: no server is asked for it.
        _warn_of(leftovers_in(broker.stats().server, current, broker))


def _rewrite(text: str) -> None:
    """Put this in the place of the line that the cursor is on."""
    sys.stdout.write(f"\r\033[K{text}")
    sys.stdout.flush()


def _to_whom_it_reads(write: Write) -> Write:
    """Let nothing depend on it that somebody reads: a pipe may be closed meanwhile."""

    def put(text: str) -> None:
        try:
            write(text)
        except OSError:
            with Path(os.devnull).open("w") as nobody:
                os.dup2(nobody.fileno(), sys.stdout.fileno())

    return put


def _status(chosen: Sequence[Broker]) -> str:
    consumers = [
        numbers for broker in chosen for numbers in broker.stats().consumers.values()
    ]
    handled = sum(numbers.succeeded for numbers in consumers)
    dead = sum(numbers.dead_lettered for numbers in consumers)
    working = sum(numbers.in_flight for numbers in consumers)
    waiting = sum(numbers.depth for numbers in consumers)
    return f"{handled} handled, {dead} dead letters, {working} in work, {waiting} here"


def _report(left: Sequence[Remainder], write: Write) -> int:
    busy = sum(remainder.in_flight for remainder in left)
    unsettled = sum(remainder.unsettled for remainder in left)
    if not busy and not unsettled:
        write("Stopped; everything that was taken was finished or given back.")
        return 0
    write(
        f"Stopped with {busy} handlers still at work and {unsettled} outcomes that the "
        "server was not told: it hands these messages out again."
    )
    return 1
