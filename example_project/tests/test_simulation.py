"""The driver counts every answer, and says when there was none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from random import Random

import pytest
from django.core.management import CommandError, call_command

from clinic.simulation import actions
from clinic.simulation.actions import ACTIONS, Visitor, choose
from clinic.simulation.client import Client, UnansweredError
from clinic.simulation.simulation import Simulation
from clinic.simulation.switching import SwitchTurner
from clinic.simulation.tally import Tally
from tests.clinic_double import ClinicDouble, running


@pytest.fixture
def clinic() -> Iterator[ClinicDouble]:
    with running() as server:
        yield server


@pytest.fixture
def client(clinic: ClinicDouble) -> Iterator[Client]:
    client = Client(clinic.url, Tally())
    yield client
    client.close()


def simulate(clinic: ClinicDouble, **options: float) -> Simulation:
    values = {"seconds": 0.0, "rate": 2000.0, "workers": 2, **options}
    return Simulation(clinic.url, switch=False, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("action", "events", "records"),
    [
        (actions.add_patient, {("patient.created", "sent"): 1}, 0),
        (actions.open_page, {("page.viewed", "accepted"): 1}, 0),
        (actions.open_record, {("page.viewed", "accepted"): 1}, 0),
        (actions.save_record, {("health.record.saved", "accepted"): 1}, 1),
        (actions.save_many, {("health.record.saved", "accepted"): 10}, 10),
        (
            actions.save_by_form,
            {("page.viewed", "accepted"): 1, ("health.record.saved", "accepted"): 1},
            1,
        ),
        (
            actions.pass_by,
            {
                ("patient.created", "sent"): 1,
                ("patient.updated", "sent"): 1,
                ("patient.deleted", "sent"): 1,
            },
            0,
        ),
    ],
)
def test_an_action_counts_what_its_answers_tell(
    client: Client, action: object, events: dict[tuple[str, str], int], records: int
) -> None:
    visitor = Visitor(client, Random(1), patients=[5])

    action(visitor)  # type: ignore[operator]

    counts = client.tally.counts()
    assert counts.events == Counter(events)
    assert counts.records == records
    assert counts.requests == counts.statuses.total()


def test_a_request_without_an_answer_is_counted(
    clinic: ClinicDouble, client: Client
) -> None:
    clinic.silent.set()

    with pytest.raises(UnansweredError):
        client.get("/")

    counts = client.tally.counts()
    assert (counts.requests, counts.unanswered) == (1, 1)
    assert counts.statuses.total() == 0


def test_a_client_goes_on_after_a_lost_answer(
    clinic: ClinicDouble, client: Client
) -> None:
    clinic.silent.set()
    with pytest.raises(UnansweredError):
        client.get("/")
    clinic.silent.clear()

    assert client.get("/").status == 200


def test_the_switch_is_turned_through_its_form(
    clinic: ClinicDouble, client: Client
) -> None:
    turner = SwitchTurner(client)

    for mode in ("normal", "slow", "slow", "normal"):
        turner.turn(mode)

    assert clinic.modes == ["slow", "normal"]


def test_every_action_is_chosen() -> None:
    chance = Random(1)

    chosen = {choose(chance) for _ in range(2000)}

    assert chosen == {action for action, _ in ACTIONS}


def test_no_answer_is_lost_when_the_traffic_stops(clinic: ClinicDouble) -> None:
    clinic.enough_at = 40

    with simulate(clinic) as run:
        assert clinic.enough.wait(30)
        counts = run.finish()

    assert counts.requests == counts.statuses.total() == clinic.asked
    assert counts.unanswered == 0


def test_visitors_outlive_a_silent_server(clinic: ClinicDouble) -> None:
    with simulate(clinic) as run:
        clinic.silent.set()
        while not run.step().unanswered:
            assert clinic.enough.wait(30)
        clinic.silent.clear()
        answered = run.step().statuses.total()
        while run.step().statuses.total() == answered:
            assert clinic.enough.wait(30)
        counts = run.finish()

    assert counts.requests == counts.statuses.total() + counts.unanswered


def test_a_visitor_who_breaks_ends_the_run(clinic: ClinicDouble) -> None:
    with simulate(clinic) as run:
        run._driver.failure = ValueError("no such page")

        with pytest.raises(ValueError, match="no such page"):
            run.step()


def test_the_command_writes_what_it_counted(
    clinic: ClinicDouble, tmp_path: Path
) -> None:
    file = tmp_path / "counts.json"
    where = ["--url", clinic.url, "--seconds", "0.2", "--rate", "200", "--switch"]

    call_command("simulate", *where, "--json", str(file), stdout=StringIO())

    counts = json.loads(file.read_text())
    assert counts["requests"] == clinic.asked
    assert sum(counts["statuses"].values()) == clinic.asked


def test_the_command_says_that_no_clinic_runs(clinic: ClinicDouble) -> None:
    clinic.silent.set()
    where = ["--url", clinic.url, "--seconds", "0.5", "--rate", "20"]

    with pytest.raises(CommandError, match="is the clinic running"):
        call_command("simulate", *where, stdout=StringIO())
