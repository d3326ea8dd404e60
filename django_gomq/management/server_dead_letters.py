"""``gomq dead-letters`` for a broker whose server keeps them, as there is no table."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from django.core.management.base import CommandError

from django_gomq.bus.broker import Broker
from django_gomq.bus.dead_letters import DeadLetter, by_pages
from django_gomq.bus.errors import describe_error, printable
from django_gomq.dead_letters.payload import payload_of_message
from django_gomq.dead_letters.rows import Choice
from django_gomq.site import brokers

from .subcommand import Write

LISTED: Final = 50
_ID: Final = re.compile(r"[0-9]+-[0-9]+\.[A-Za-z0-9_.:-]{1,200}")


def is_id(text: str) -> bool:
    """Whether a server may have given this id."""
    return _ID.fullmatch(text) is not None


def has_any(alias: str | None) -> bool:
    """Whether there is such a broker, or any, whose server keeps dead letters."""
    return bool(_candidates(alias))


def _candidates(alias: str | None) -> Sequence[Broker]:
    return [
        broker
        for broker in brokers.values()
        if alias in (None, broker.alias) and broker.capabilities.moves_dead_letters
    ]


def run(options: Mapping[str, Any], choice: Choice, write: Write) -> int:
    """Do it; return 0. Raises CommandError for what is not there. Blocks."""
    found = _candidates(options["broker"])
    if len(found) > 1:
        names = " or ".join(broker.alias for broker in found)
        raise CommandError(f"Say which: --broker {names}.", returncode=2)
    if options["by_fault"]:
        raise CommandError(
            "--by-fault counts in the table: run manage.py migrate gomq first.",
            returncode=2,
        )
    (broker,) = found
    try:
        return _ACTIONS[options["action"]](broker, options, choice, write)
    except CommandError:
        raise
    except Exception as error:
        raise CommandError(
            f"The server of broker {broker.alias!r} cannot be asked: "
            f"{describe_error(error)}.",
            returncode=2,
        ) from error


def _chosen(
    broker: Broker, options: Mapping[str, Any], choice: Choice
) -> Iterator[DeadLetter]:
    """Yield those that are meant, oldest first."""
    wanted = set(map(str, options["ids"]))
    return (
        letter
        for letter in by_pages(broker.backend.dead_letters)
        if (letter.id in wanted if wanted else _is_meant(letter, choice))
    )


def _is_meant(letter: DeadLetter, choice: Choice) -> bool:
    return (
        choice.consumer in (None, letter.consumer)
        and (choice.event is None or choice.event.matches(letter.message.type))
        and (choice.error is None or choice.error.lower() in letter.error.lower())
        and (choice.since is None or letter.time >= choice.since)
    )


def _data_of(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "broker": letter.broker,
        "consumer": letter.consumer,
        "type": letter.message.type,
        "message_id": letter.message.id,
        "trace_id": letter.trace_id,
        "attempt": letter.attempt,
        "error_type": letter.error_type,
        "error": letter.error,
        "first_failed": _utc(letter.first_failed),
        "failed": _utc(letter.time),
    }


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _list(
    broker: Broker, options: Mapping[str, Any], choice: Choice, write: Write
) -> int:
    found = deque[DeadLetter](maxlen=options["limit"] or LISTED)
    total = 0
    for total, letter in enumerate(_chosen(broker, options, choice), 1):  # noqa: B007
        found.append(letter)
    shown = [_data_of(letter) for letter in reversed(found)]
    if options["json"]:
        write(json.dumps({"total": total, "dead_letters": shown}, indent=2))
        return 0
    rows = [
        [
            letter["id"],
            letter["failed"],
            printable(letter["error"], 120),
            printable(letter["type"]),
        ]
        for letter in shown
    ]
    headers = ["id", "given up", "error", "event"]
    title = "Dead letters at the server, the newest first"
    write(options["screen"].table(title, headers, rows) or "No dead letters.")
    if total > len(shown):
        write(f"{len(shown)} of {total} dead letters; --limit shows more.")
    return 0


def _show(
    broker: Broker, options: Mapping[str, Any], choice: Choice, write: Write
) -> int:
    found = list(_chosen(broker, options, choice))
    details = [_details_of(letter, payload=options["payload"]) for letter in found]
    if options["json"]:
        write(json.dumps(details, indent=2))
    else:
        write("\n".join(line for details in details for line in _lines_of(details)))
    return _tell_absent(options, [letter.id for letter in found])


def _details_of(letter: DeadLetter, *, payload: bool) -> dict[str, Any]:
    found = {**_data_of(letter), "traceback": letter.traceback}
    return (
        {**found, "payload": payload_of_message(letter.message)} if payload else found
    )


def _lines_of(details: Mapping[str, Any]) -> Iterator[str]:
    for name, value in details.items():
        lines = [printable(line, 2_000) for line in str(value).split("\n")]
        yield f"{name:12}  " + "\n  ".join(lines)
    yield ""


def _tell_absent(options: Mapping[str, Any], found: Sequence[str]) -> int:
    absent = set(map(str, options["ids"])).difference(found)
    if absent:
        names = ", ".join(sorted(absent)[:20])
        raise CommandError(f"Not at the server: {names}.", returncode=1)
    return 0


def _act(
    broker: Broker, options: Mapping[str, Any], choice: Choice, write: Write
) -> int:
    action, is_dry = options["action"], options["dry_run"]
    if not (options["ids"] or choice or options["all"]):
        raise CommandError(
            f"Which? Give ids, --consumer, --event, --error or --since; --all to "
            f"{action} all of them.",
            returncode=2,
        )
    # Before any is replayed: those that are given up again are no part of it.
    chosen = islice(_chosen(broker, options, choice), options["limit"])
    ids = [letter.id for letter in chosen]
    act = broker.backend.replay if action == "replay" else broker.backend.discard
    count = len(ids) if is_dry else act(ids)
    word = {"replay": "replayed", "discard": "discarded"}[action]
    if options["json"]:
        write(json.dumps({word: count, "dry_run": is_dry}))
    else:
        verb = f"Would have {word}" if is_dry else word.capitalize()
        write(f"{verb} {count} dead letter{'' if count == 1 else 's'}.")
    if count < len(ids):
        raise CommandError(
            f"{len(ids) - count} not {word}: their consumers are not set up (run "
            "manage.py gomq setup where the code has them), or others were faster.",
            returncode=1,
        )
    return _tell_absent(options, ids)


_ACTIONS: Final = {"list": _list, "show": _show, "replay": _act, "discard": _act}
