"""What one visitor does, one action at a time; it knows addresses and no thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from random import Random

from clinic.simulation.client import Answer, Client

KINDS = ("visit", "vaccination", "prescription", "measurement")
DOCTORS = ("Dr. Osei", "Dr. Lindqvist", "Dr. Haddad", "Dr. Moreau")
NAMES = ("Ada", "Bruno", "Chidi", "Dalia", "Emre", "Farah", "Goran", "Hana")
CITIES = ("Lyon", "Porto", "Graz", "Turku", "Gent")
PAGES = ("/", "/patients/", "/statistics/", "/audit/", "/switches/")
BULK = 10


@dataclass(slots=True)
class Visitor:
    """One visitor: a connection, chance, and what it remembers of its answers."""

    client: Client
    chance: Random
    patients: list[int] = field(default_factory=list)
    last_record: int | None = None


def add_patient(visitor: Visitor) -> None:
    """Register a patient, for the records to come."""
    visitor.patients.append(_new_patient(visitor))


def open_page(visitor: Visitor) -> None:
    """Look at a list."""
    visitor.client.get(visitor.chance.choice(PAGES))


def open_record(visitor: Visitor) -> None:
    """Look at the record saved last, if there is one."""
    if visitor.last_record is None:
        return open_page(visitor)
    visitor.client.get(f"/records/{visitor.last_record}/")
    return None


def save_record(visitor: Visitor) -> None:
    """Save one record over JSON."""
    answer = visitor.client.send_json("POST", "/api/records/", _record(visitor))
    if answer.status == HTTPStatus.CREATED:
        visitor.client.tally.saved(1)
        visitor.last_record = _number(answer, "id")


def save_by_form(visitor: Visitor) -> None:
    """Save one record with the form of the home page."""
    fields = {name: str(value) for name, value in _record(visitor).items()}
    answer = visitor.client.post_form("/records/", fields, page="/")
    if answer.status == HTTPStatus.FOUND:
        visitor.client.tally.saved(1)


def save_many(visitor: Visitor) -> None:
    """Save a batch of records over JSON."""
    rows = [_record(visitor) for _ in range(BULK)]
    answer = visitor.client.send_json("POST", "/api/records/bulk/", {"records": rows})
    if answer.status == HTTPStatus.CREATED:
        visitor.client.tally.saved(BULK)


def forget_signature(visitor: Visitor) -> None:
    """Save a record that is refused after its emit: the clinic must roll back."""
    record = {**_record(visitor), "signed_by": ""}
    visitor.client.send_json("POST", "/api/records/", record)


def mistype(visitor: Visitor) -> None:
    """Send a record of a kind that does not exist: refused before any emit."""
    record = {**_record(visitor), "kind": "vaccinashun"}
    visitor.client.send_json("POST", "/api/records/", record)


def pass_by(visitor: Visitor) -> None:
    """Register a patient who moves and then leaves: three signals of a model."""
    address = f"/api/patients/{_new_patient(visitor)}/"
    visitor.client.send_json("PUT", address, _patient(visitor))
    visitor.client.send_json("DELETE", address)


ACTIONS: tuple[tuple[Callable[[Visitor], None], int], ...] = (
    (save_record, 45),
    (open_page, 22),
    (open_record, 12),
    (save_by_form, 4),
    (save_many, 5),
    (forget_signature, 5),
    (mistype, 3),
    (pass_by, 4),
)
"""Each action with its share of a visitor's day."""


def choose(chance: Random) -> Callable[[Visitor], None]:
    """Pick the next action, by shares."""
    actions, shares = zip(*ACTIONS, strict=True)
    action: Callable[[Visitor], None] = chance.choices(actions, shares)[0]
    return action


def _record(visitor: Visitor) -> dict[str, object]:
    return {
        "patient": visitor.chance.choice(visitor.patients),
        "kind": visitor.chance.choice(KINDS),
        "note": "",
        "signed_by": visitor.chance.choice(DOCTORS),
    }


def _patient(visitor: Visitor) -> dict[str, object]:
    name = f"{visitor.chance.choice(NAMES)} {visitor.chance.randrange(1000):03}"
    return {"name": name, "city": visitor.chance.choice(CITIES)}


def _new_patient(visitor: Visitor) -> int:
    answer = visitor.client.send_json("POST", "/api/patients/", _patient(visitor))
    return _number(answer, "id")


def _number(answer: Answer, name: str) -> int:
    value = answer.json()[name]
    if not isinstance(value, int):
        raise TypeError(f"{name} is not a number: {value!r}")
    return value
