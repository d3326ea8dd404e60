"""A patient to start from, and other ports for each of the processes that test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from acceptance import ports
from clinic.records.models import Patient
from watching import webhook


@pytest.fixture
def patient(db: None) -> Patient:
    return Patient.objects.create(name="Ada 001", city="Lyon")


@pytest.fixture(autouse=True, scope="session")
def _own_ports() -> Iterator[None]:
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports, "_OTHERS", ports._OTHERS[process::processes])
        patch.setattr(webhook, "free_port", lambda _: 0)  # the system gives it one
        yield
