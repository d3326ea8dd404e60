"""``manage.py gomq dead-letters``: list, show, replay and discard them."""

from __future__ import annotations

import json
import logging
import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.core.management.base import CommandError
from django.db import Error
from django.db.models import QuerySet

from django_gomq.bus.errors import PublishError, describe_error, printable
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.dead_letters.payload import payload_of
from django_gomq.dead_letters.rows import (
    MAX_STEP,
    Choice,
    Fault,
    by_fault,
    database_of_processes,
    databases,
    discard,
    id_in,
    moment_of,
    replay,
    steps,
    still_wanted,
)
from django_gomq.models import StoredDeadLetter
from django_gomq.site import brokers

from . import server_dead_letters
from .arguments import moment, pattern
from .subcommand import Write
from .tables import Screen

logger = logging.getLogger("gomq.dead_letters")

HELP: Final = "List, show, replay or discard what consumers gave up on."

LISTED: Final = 50
"""Rows of a list that nobody gave a limit."""
SHOWN_ERROR: Final = 120
"""Characters of an error in a list: a table is to be looked over."""
NAMED: Final = 20
"""Ids that one error names."""
NOT_DONE: Final = 1
CANNOT: Final = 2
WAIT_SECONDS: Final = 15.0
"""How long a replay waits for processes: they look every five seconds."""
_FIELDS: Final = (
    *("broker", "consumer", "type", "message_id", "trace_id", "attempt"),
    *("error_type", "error", "replay_wanted"),
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add what to do, and with which dead letters."""
    parser.add_argument("action", choices=sorted(_ACTIONS), help="what to do")
    parser.add_argument("ids", nargs="*", type=_id, metavar="ID", help="of `list`")
    parser.add_argument("--consumer", metavar="NAME", help="those of this consumer")
    parser.add_argument(
        "--event",
        type=pattern,
        metavar="PATTERN",
        help="those of this event type, or of a pattern such as 'health.*'",
    )
    parser.add_argument(
        "--error", metavar="TEXT", help="those with this in class or text of the error"
    )
    parser.add_argument(
        "--since",
        type=moment,
        metavar="TIME",
        help="those given up since 30m, 2h, 7d, or 2026-01-31T12:00",
    )
    parser.add_argument("--all", action="store_true", help="replay or discard all")
    parser.add_argument("--broker", metavar="ALIAS", help="those of this broker")
    parser.add_argument(
        "--limit",
        type=_count,
        metavar="N",
        help=f"the newest N in a list (default: {LISTED}); else the oldest N",
    )
    parser.add_argument(
        "--by-fault",
        action="store_true",
        help="list: count them by consumer and error, whatever its numbers",
    )
    parser.add_argument(
        "--payload",
        action="store_true",
        help="show: the data too, as DEAD_LETTERS['REDACT'] lets it be seen",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="replay and discard: only say how many there are",
    )
    parser.add_argument("--json", action="store_true", help="JSON in place of text")


def _id(text: str) -> int | str:
    found = id_in(text)
    if found is not None:
        return found
    if server_dead_letters.is_id(text):
        return text
    raise ArgumentTypeError(f"{text!r:.50} is no id: `list` shows them")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**63):
        raise ArgumentTypeError(f"{text!r:.50} is no number from 1")
    return int(text)


def run(options: Mapping[str, Any], write: Write) -> int:
    """Do it; return 1 if something was not there, or could not be replayed."""
    action: str = options["action"]
    _refuse_stray(action, options)
    if options["error"] == "":
        raise CommandError(
            "--error is empty, and would mean every dead letter: leave it out, or give "
            "--all.",
            returncode=CANNOT,
        )
    choice = Choice(
        broker=options["broker"],
        consumer=options["consumer"],
        event=options["event"],
        error=options["error"],
        since=options["since"],
    )
    using = _database(options["broker"])
    if using is None:
        return server_dead_letters.run(options, choice, write)
    _move(options["broker"])
    strange = [each for each in options["ids"] if isinstance(each, str)]
    if strange:
        raise CommandError(
            f"Not in database {using!r}: {', '.join(strange[:NAMED])}, which is how a "
            "server names them: they have been moved to the table since. See `list`.",
            returncode=NOT_DONE,
        )
    try:
        return _ACTIONS[action](using, choice, options, write)
    except Error as error:
        raise _unreachable(using, error) from error
    except PublishError as error:
        raise CommandError(
            f"{error} What is not replayed stays as it was.", returncode=CANNOT
        ) from error


def _move(alias: str | None) -> None:
    """Have in the table what servers still keep; where one is away, say so."""
    for broker in brokers.values():
        if alias in (None, broker.alias) and broker.capabilities.moves_dead_letters:
            try:
                broker.server_letters.move()
            except Exception as error:  # noqa: BLE001 - whatever a client raises
                write_log(
                    logger,
                    logging.WARNING,
                    "Broker %s: the dead letters that are still at its server cannot "
                    "be had now: %s",
                    broker.alias,
                    describe_error(error),
                    fields={"gomq_broker": broker.alias},
                )


_ONLY_FOR: Final[Mapping[str, Sequence[str]]] = {
    "by_fault": ("list",),
    "payload": ("show",),
    "dry_run": ("replay", "discard"),
    "all": ("replay", "discard"),
}


def _refuse_stray(action: str, options: Mapping[str, Any]) -> None:
    for name, actions in _ONLY_FOR.items():
        if options[name] and action not in actions:
            option = f"--{name.replace('_', '-')}"
            raise CommandError(
                f"{option} goes with {' and '.join(actions)}, not with {action}.",
                returncode=CANNOT,
            )
    filters = ("consumer", "event", "error", "since", "all", "limit")
    filtered = [name for name in filters if options[name]]
    if options["ids"] and (filtered or action == "list"):
        what = f"--{filtered[0]}" if filtered else "list"
        raise CommandError(f"Give ids or {what}, not both.", returncode=CANNOT)
    if action == "show" and not options["ids"]:
        raise CommandError("Which? Give the ids that `list` shows.", returncode=CANNOT)


def _database(alias: str | None) -> str | None:
    """Return the database with those of this broker, or the only one that has any.

    None where there is no table, and a server keeps them.
    """
    try:
        known = databases()
    except Error as error:
        raise _unreachable(str(database_of_processes()), error) from error
    found = [
        using for using, brokers in known.items() if alias is None or alias in brokers
    ]
    if len(found) == 1:
        return found[0]
    if not found and server_dead_letters.has_any(alias):
        return None
    names = sorted(name for brokers in known.values() for name in brokers)
    if alias is not None and known:
        text = f"Broker {alias!r} keeps none in a database; there are: "
        text += f"{', '.join(names)}."
    elif known:
        text = f"Say which: --broker {' or '.join(names)}."
    else:
        text = (
            "No dead letters are kept in a database: run manage.py migrate gomq. Those "
            "of memory brokers are in their process until then, where "
            "get_broker().dead_letters() lists the latest."
        )
    raise CommandError(text, returncode=CANNOT)


def _unreachable(using: str, error: Error) -> CommandError:
    return CommandError(
        f"The dead letters in database {using!r} cannot be reached: "
        f"{describe_error(error)}. Where its table is "
        f"missing, run manage.py migrate gomq --database {using}.",
        returncode=CANNOT,
    )


# ---------------------------------------------------------------- list


def _list(using: str, choice: Choice, options: Mapping[str, Any], write: Write) -> int:
    rows = choice.rows(using)
    limit = options["limit"] or LISTED
    if options["by_fault"]:
        faults = by_fault(rows)
        total, shown = len(faults), [_fault_of(fault) for fault in faults[:limit]]
        table, name = _fault_table, "faults"
    else:
        total = rows.count()
        newest = rows.defer("traceback", "envelope").order_by("-id")[:limit]
        shown = [_data_of(letter) for letter in newest]
        table, name = _table, "dead letters"
    if options["json"]:
        key = name.replace(" ", "_")
        write(json.dumps({"total": total, key: shown}, indent=2))
        return 0
    write(table(shown, options["screen"]) or f"No {name}.")
    if total > len(shown):
        write(f"{len(shown)} of {total} {name}; --limit shows more.")
    return 0


def _data_of(letter: StoredDeadLetter) -> dict[str, Any]:
    return {
        "id": letter.pk,
        **{name: getattr(letter, name) for name in _FIELDS},
        "first_failed": _utc(letter.first_failed),
        "failed": _utc(letter.failed),
    }


def _fault_of(fault: Fault) -> dict[str, Any]:
    return {
        "consumer": fault.consumer,
        "fault": fault.fault,
        "count": fault.count,
        "first": _utc(fault.first),
        "last": _utc(fault.last),
        "example": fault.example,
    }


def _utc(seconds: float) -> str:
    return moment_of(seconds).isoformat(timespec="seconds")


def _local(text: str) -> str:
    moment = datetime.fromisoformat(text).astimezone()
    return moment.replace(tzinfo=None).isoformat(" ", "seconds")


def _table(shown: Sequence[Mapping[str, Any]], screen: Screen) -> str:
    rows = [
        [
            str(letter["id"]),
            _local(letter["failed"]),
            printable(letter["consumer"]),
            printable(letter["type"]),
            printable(letter["error"], SHOWN_ERROR),
        ]
        for letter in shown
    ]
    headers = ["id", "given up", "consumer", "event", "error"]
    return screen.table("Dead letters, the newest first", headers, rows, right={"id"})


def _fault_table(shown: Sequence[Mapping[str, Any]], screen: Screen) -> str:
    rows = [
        [
            str(fault["count"]),
            printable(fault["consumer"]),
            printable(fault["fault"], SHOWN_ERROR),
            _local(fault["last"]),
            str(fault["example"]),
        ]
        for fault in shown
    ]
    headers = ["count", "consumer", "fault", "last", "such as"]
    return screen.table(
        "Faults, the most frequent first", headers, rows, right={"count", "such as"}
    )


# ---------------------------------------------------------------- show


def _show(using: str, choice: Choice, options: Mapping[str, Any], write: Write) -> int:
    wanted: list[int] = options["ids"]
    rows = choice.rows(using)
    found = [row for id_ in wanted for row in rows.filter(pk=id_)]
    details = [_details_of(letter, payload=options["payload"]) for letter in found]
    if options["json"]:
        write(json.dumps(details, indent=2))
    else:
        for detail in details:
            write(_as_text(detail))
    return _tell_absent(wanted, [letter.pk for letter in found], using)


def _details_of(letter: StoredDeadLetter, *, payload: bool) -> dict[str, Any]:
    more = {"payload": payload_of(letter)} if payload else {}
    return {**_data_of(letter), "traceback": letter.traceback, **more}


def _as_text(details: Mapping[str, Any]) -> str:
    blocks = ("traceback", "payload")
    width = max(len(name) for name in details if name not in blocks)
    lines = [
        f"{name:{width}}  {printable(str(value), 2_000)}"
        for name, value in details.items()
        if name not in blocks
    ]
    for name in blocks:
        if details.get(name):
            lines += [f"{name}:", *_block(details[name])]
    return "\n".join([*lines, ""])


def _block(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        yield f"  {printable(line, 1_000)}"


def _tell_absent(wanted: Iterable[int], found: Sequence[int], using: str) -> int:
    absent = sorted(set(wanted).difference(found))
    if not absent:
        return 0
    names = ", ".join(map(str, absent[:NAMED]))
    more = " and others" if absent[NAMED:] else ""
    raise CommandError(
        f"Not in database {using!r}: {names}{more}.", returncode=NOT_DONE
    )


# ---------------------------------------------------------------- replay, discard


def _replay(
    using: str, choice: Choice, options: Mapping[str, Any], write: Write
) -> int:
    rows = _rows_of(using, choice, options)
    wanted, done = _act(rows, replay, using, options, write, "replayed", _wait_for)
    if options["dry_run"] or len(done) == len(wanted):
        return _tell_absent(options["ids"], wanted, using)
    missed = sorted(set(wanted).difference(done))
    told = list(_reasons(choice.rows(using).filter(pk__in=missed[:MAX_STEP])))
    if not told:  # others have replayed or discarded them meanwhile
        return _tell_absent(missed, (), using)
    raise CommandError(
        f"{len(missed)} not replayed: {'; '.join(told)}.", returncode=NOT_DONE
    )


def _reasons(stay: QuerySet[StoredDeadLetter]) -> Iterator[str]:
    for is_of_process, is_wanted, text in _WHY_NOT:
        rows = stay.filter(event_id__isnull=is_of_process, replay_wanted=is_wanted)
        names = sorted(set(rows.values_list("consumer", flat=True)))
        if names:
            yield text.format(", ".join(names))


_NOT_RECORDED: Final = (
    "nobody has recorded {}: run manage.py gomq setup where the code has these "
    "consumers, or discard them"
)
_NOT_HERE: Final = (
    "no process of this site can hand them to {}: the code has no such consumer on "
    "their broker, or the broker has a server, which would not know of them"
)
_NOT_TAKEN: Final = (
    f"no process has taken those of {{}} within {WAIT_SECONDS:g} s, as none runs the "
    "consumer now, or its channel is full: the first that can will"
)
_WHY_NOT: Final = (
    (False, False, _NOT_RECORDED),
    (True, False, _NOT_HERE),
    (True, True, _NOT_TAKEN),
)
"""By whether they are of a process's memory, and whether their replay is asked for."""


def _wait_for(using: str, ids: Sequence[int]) -> list[int]:
    """Return those of these that processes have taken, or that needed none."""
    end = time.monotonic() + WAIT_SECONDS
    left = still_wanted(using, ids)
    while left and time.monotonic() < end:
        time.sleep(0.1)
        left = still_wanted(using, left)
    return sorted(set(ids).difference(left))


def _discard(
    using: str, choice: Choice, options: Mapping[str, Any], write: Write
) -> int:
    rows = _rows_of(using, choice, options)
    wanted, _ = _act(rows, discard, using, options, write, "discarded")
    return _tell_absent(options["ids"], wanted, using)


def _rows_of(
    using: str, choice: Choice, options: Mapping[str, Any]
) -> QuerySet[StoredDeadLetter]:
    rows = choice.rows(using)
    if options["ids"]:
        return rows.filter(pk__in=options["ids"])
    if not choice and not options["all"]:
        raise CommandError(
            f"Which? Give ids, --consumer, --event, --error or --since; --all to "
            f"{options['action']} all of them.",
            returncode=CANNOT,
        )
    return rows


def _act(
    rows: QuerySet[StoredDeadLetter],
    act: Callable[[str, Iterable[int]], list[int]],
    using: str,
    options: Mapping[str, Any],
    write: Write,
    done_word: str,
    wait_for: Callable[[str, Sequence[int]], list[int]] = lambda _, ids: list(ids),
) -> tuple[list[int], list[int]]:
    wanted: list[int] = []
    done: list[int] = []
    try:
        for ids in steps(rows, options["limit"]):
            wanted += ids
            if not options["dry_run"]:
                done += act(using, ids)
        done = wait_for(using, done)
    finally:  # also where the database goes away in the middle
        write(_told(done_word, wanted if options["dry_run"] else done, options))
    return wanted, done


def _told(done_word: str, ids: Sequence[int], options: Mapping[str, Any]) -> str:
    count, is_dry = len(ids), options["dry_run"]
    if options["json"]:
        return json.dumps({done_word: count, "dry_run": is_dry})
    verb = f"Would have {done_word}" if is_dry else done_word.capitalize()
    return f"{verb} {count} dead letter{'' if count == 1 else 's'}."


_ACTIONS: Final[
    Mapping[str, Callable[[str, Choice, Mapping[str, Any], Write], int]]
] = {"list": _list, "show": _show, "replay": _replay, "discard": _discard}
