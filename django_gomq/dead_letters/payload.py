"""What may be seen of the data of a dead letter."""

from __future__ import annotations

import json
import logging
from typing import Any, Final

from django.utils.module_loading import import_string

from django_gomq.backends.database.dead_letters import message_of
from django_gomq.bus.errors import DecodeError, error_class_name
from django_gomq.bus.message import Message, decode_plain
from django_gomq.bus.process.housekeeping import write_log
from django_gomq.models import StoredDeadLetter
from django_gomq.site import brokers

logger = logging.getLogger("gomq.dead_letters")

MAX_PAYLOAD: Final = 20_000
"""Characters that are shown."""


def payload_of(letter: StoredDeadLetter) -> str:
    """Return the data of its message as text, as ``REDACT`` lets it be seen.

    Never raises an Exception: where ``REDACT`` fails, it says so, and nothing is shown.
    """
    return payload_of_message(message_of(letter.type, bytes(letter.envelope)))


def payload_of_message(message: Message[Any], most: int = MAX_PAYLOAD) -> str:
    """Return the data of a message as text, as ``payload_of`` does.

    ``most`` is how many characters are shown.
    """
    try:
        data = decode_plain(message)
    except DecodeError:
        return f"Not JSON: {len(message.body)} bytes, which are not shown."
    path = brokers.site.config.dead_letters.get("REDACT") if brokers.site else None
    try:
        shown = data if path is None else import_string(path)(data)
        text = json.dumps(shown, indent=2, ensure_ascii=False)
    except Exception as error:  # noqa: BLE001 - it is the site's own code
        # Its text may hold what was to be hidden.
        name = error_class_name(error)
        write_log(
            logger,
            logging.ERROR,
            "GOMQ['DEAD_LETTERS']['REDACT'] failed for a message of %s with %s",
            message.type,
            name,
            fields={"gomq_event": message.type, "gomq_error_type": name},
        )
        return f"Not shown: REDACT ({path}) failed with {name}."
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]}\n... {left} more characters"
