"""GOMQ["HOOKS"]: a site's own observers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from django.core.checks import run_checks
from pytest_django import Settings

from django_gomq import consumer, emit, get_broker
from django_gomq.bus.errors import ConfigurationError
from tests.bus.misbehaving_logs import WHERE, raising
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import fill, hold, listen, wait_quiet
from tests.django_site.own_hooks import Noting
from tests.django_site.waiting import SECONDS

HERE = "tests.django_site.own_hooks"


@pytest.fixture(autouse=True)
def _none_made() -> Iterator[None]:
    Noting.made.clear()
    yield
    Noting.made.clear()


def fail(message: object) -> None:
    raise ValueError("no such page")


@pytest.mark.parametrize("name", ["Noting", "make_noting"])
def test_a_hook_of_the_site_hears_of_what_happens(
    live_site: UseSite, name: str
) -> None:
    consumer("page.viewed", name="fails")(fail)
    live_site(HOOKS=[f"{HERE}.{name}"])

    emit("page.viewed", 7)

    wait_quiet()
    [hook] = Noting.made
    assert hook.letters == [("fails", 7, "no such page")]


def test_one_is_made_for_all_brokers_of_a_process(live_site: UseSite) -> None:
    listen("page.viewed", "blog.read")
    live_site(
        HOOKS=[f"{HERE}.Noting"],
        BROKERS={"default": {}, "second": {}},
        ROUTES={"blog.*": "second"},
    )

    emit("page.viewed")
    emit("blog.read")

    wait_quiet()
    wait_quiet("second")
    assert len(Noting.made) == 1


def test_no_hook_is_made_before_it_is_needed(live_site: UseSite) -> None:
    live_site(HOOKS=[f"{HERE}.Noting"])

    assert Noting.made == []


@pytest.mark.parametrize("name", ["make_nothing", "make_trouble", "Demanding"])
def test_a_hook_that_cannot_be_made_is_told_and_costs_itself_alone(
    live_site: UseSite, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = listen("page.viewed")
    live_site(HOOKS=[f"{HERE}.{name}", f"{HERE}.Noting"])

    assert emit("page.viewed")

    seen.wait_for(1)
    assert len(Noting.made) == 1
    lines = [record for record in caplog.records if record.name == "gomq.hooks"]
    assert [line.levelno for line in lines] == [logging.ERROR]
    assert f"{HERE}.{name}" in lines[0].getMessage()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("tests.nowhere.Hook", "cannot be imported: ModuleNotFoundError"),
        (f"{HERE}.Nothing", "cannot be imported: ImportError"),
        ("Noting", "cannot be imported: ImportError"),
        (f"{HERE}.NoHook", "is no Hook"),
        (f"{HERE}.A_TEXT", "is no Hook"),
    ],
)
def test_what_is_no_hook_is_an_error_with_a_hint(
    use_site: UseSite, settings: Settings, path: str, told: str
) -> None:
    use_site()
    settings.GOMQ["HOOKS"] = [path]

    [error] = [found for found in run_checks() if found.id == "gomq.E002"]

    assert told in error.msg
    assert path in error.msg
    assert "django_gomq.bus.hooks.Hook" in str(error.hint)


def test_hooks_that_are_no_list_of_paths_stop_the_setup(use_site: UseSite) -> None:
    with pytest.raises(ConfigurationError, match=r"GOMQ\['HOOKS'\]"):
        use_site(HOOKS=f"{HERE}.Noting")


@pytest.mark.parametrize("where", WHERE)
def test_an_emit_outlives_logging_that_raises(live_site: UseSite, where: str) -> None:
    held = hold("page.viewed")
    live_site(BROKERS={"default": {"OPTIONS": {"capacity": 1}}})
    fill("page.viewed", held, 1)

    with raising(where, OSError(28, "No space left on device")):
        receipts = [emit("page.viewed") for _ in range(10)]
        nobody = emit("nobody.listens")
        assert get_broker().hooks.flush(SECONDS)

    held.release.set()
    assert [receipt.reason for receipt in receipts] == ["queue_full"] * 10
    assert nobody.reason == "no_consumer"
