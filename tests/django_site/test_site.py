from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from django_gomq import ConfigurationError, consumer, emit, get_broker, site
from django_gomq.backends.memory import MemoryBackend
from django_gomq.conf import load
from django_gomq.site import brokers, check_environment
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen, wait_quiet
from tests.django_site.waiting import SECONDS


def test_changed_settings_make_a_new_site_and_the_old_one_comes_back() -> None:
    before = brokers.site

    with override_settings(GOMQ={"BROKERS": {"default": {}, "extra": {}}}):
        aliases = sorted(brokers), len(brokers), get_broker("extra").alias

    assert aliases == (["default", "extra"], 2, "extra")
    assert list(brokers) == ["default"]
    assert brokers.site is not before


def test_other_changed_settings_leave_the_site_alone() -> None:
    before = brokers.site

    with override_settings(USE_TZ=False):
        assert brokers.site is before


def test_a_changed_setting_closes_what_ran(live_site: UseSite) -> None:
    from django_gomq import emit

    seen = listen("page.viewed")
    old = live_site(DRAIN_TIMEOUT=SECONDS).brokers["default"]
    emit("page.viewed", 1)

    live_site(THREADS=2)

    assert old.is_closed
    assert seen.data == [1]
    assert get_broker() is not old


def test_what_a_command_uses_instead_of_the_settings_takes_the_place_of_what_ran(
    live_site: UseSite,
) -> None:
    seen = listen("page.viewed", name="pages.seen")
    old = live_site(DRAIN_TIMEOUT=SECONDS).brokers["default"]
    emit("page.viewed", 1)

    site.use(load({"CONSUMERS": {"pages.seen": {"enabled": False}}}))

    assert old.is_closed
    assert seen.data == [1]
    assert get_broker().consumers == []
    assert not get_broker().is_started


def test_what_is_registered_after_a_command_chose_runs_there(
    live_site: UseSite,
) -> None:
    live_site()
    site.use(load({}))

    seen = listen("page.viewed")
    emit("page.viewed", 1)

    seen.wait_for(1)


def test_a_configuration_that_cannot_be_leaves_no_second_site(
    live_site: UseSite,
) -> None:
    before = live_site()

    with pytest.raises(ConfigurationError, match="cannot be imported"):
        site.use(load({"BROKERS": {"default": {"BACKEND": "no.such.Backend"}}}))

    assert brokers.site is before


class TakesAll(MemoryBackend):
    def __init__(self, **options: object) -> None:
        raise TypeError(f"{', '.join(options)} is not for it")


TAKES_ALL = f"{__name__}.TakesAll"


@pytest.mark.parametrize(
    ("gomq", "complaint"),
    [
        (
            {"BROKERS": {"default": {}, "far": {"BACKEND": "nope.Backend"}}},
            r"^GOMQ\['BROKERS'\]\['far'\]: BACKEND 'nope.*: Module.*There are 'djan",
        ),
        ({"BROKERS": {"default": {"BACKEND": "Backend"}}}, "cannot be imported"),
        (
            {"BROKERS": {"default": {"BACKEND": "json.dumps"}}},
            r"\['default'\]: BACKEND 'json.dumps' is no Backend class. There are 'dja",
        ),
        (
            {"BROKERS": {"default": {"OPTIONS": {"size": 1}}}},
            r"\['OPTIONS'\]\['size'\] does not exist: MemoryBackend has capacity, max_",
        ),
        (
            {
                "BROKERS": {
                    "default": {"BACKEND": f"{__name__}.TakesAll", "OPTIONS": {"a": 1}}
                }
            },
            r"\['OPTIONS'\]: a is not for it",
        ),
        ({"BROKERS": {"default": {"OPTIONS": {"capacity": 0}}}}, "OPTIONS.*capacity"),
        ({"BROKERS": {"default": {"RUN": "worker"}}}, "RUN 'worker' needs a backend"),
        (
            {"CONSUMERS": {"nobody": {"concurrency": 2}}},
            r"GOMQ\['CONSUMERS'\] names 'nobody': there is no such .* there are seen",
        ),
        (
            {"CONSUMERS": {"seen": {"concurrency": 0}}},
            r"GOMQ\['CONSUMERS'\]: Consumer 'seen': concurrency is 0",
        ),
        (
            {"CONSUMERS": {"seen": {"atomic": "nope"}}},
            r"^GOMQ\['CONSUMERS'\]: Consumer 'seen': atomic='nope' names no database",
        ),
    ],
)
def test_what_cannot_work_is_told_when_the_site_is_made(
    use_site: UseSite, gomq: Any, complaint: str
) -> None:
    listen("page.viewed")

    with pytest.raises(ConfigurationError, match=complaint):
        use_site(**gomq)


def test_a_wrong_word_in_the_environment_is_refused() -> None:
    check_environment({"GOMQ_RUN": "never"})
    check_environment({"GOMQ_RUN": ""})

    with pytest.raises(ConfigurationError, match="GOMQ_RUN='no'.*here or worker"):
        check_environment({"GOMQ_RUN": "no"})


def test_before_the_setup_a_broker_says_what_to_do(own_registry: None) -> None:
    brokers.set_up(None)

    with pytest.raises(ConfigurationError, match="INSTALLED_APPS"):
        get_broker()

    assert (list(brokers), len(brokers)) == ([], 0)


def test_an_unknown_alias_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="'nope'.*there are 'default'"):
        get_broker("nope")


@pytest.mark.parametrize(("options", "kept"), [({}, 2), ({"dead_letters": 1}, 1)])
def test_the_number_of_dead_letters_kept_is_a_setting_that_a_broker_may_overrule(
    live_site: UseSite, options: dict[str, int], kept: int
) -> None:
    consumer("page.viewed", name="fails")(lambda message: 1 / 0)
    live_site(BROKERS={"default": {"OPTIONS": options}}, DEAD_LETTERS={"KEEP": 2})

    for _ in range(4):
        emit("page.viewed")
    wait_quiet()

    assert len(get_broker().dead_letters()) == kept


def test_options_at_deploy_time_win_over_the_code(use_site: UseSite) -> None:
    listen("page.viewed", concurrency=2)

    site = use_site(CONSUMERS={"seen": {"concurrency": 4}}, DEAD_LETTERS={"KEEP": 3})

    assert [one.concurrency for one in site.consumers] == [4]
