from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from django_gomq import ConfigurationError, consumer, emit, get_broker
from django_gomq.site import brokers, check_environment
from tests.django_site.conftest import UseSite
from tests.django_site.handlers import listen, wait_quiet


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
    old = live_site().brokers["default"]
    emit("page.viewed", 1)

    live_site(THREADS=2)

    assert old.is_closed
    assert seen.data == [1]
    assert get_broker() is not old


@pytest.mark.parametrize(
    ("gomq", "complaint"),
    [
        ({"BROKERS": {"default": {"BACKEND": "nope.Backend"}}}, "cannot be imported"),
        ({"BROKERS": {"default": {"BACKEND": "Backend"}}}, "cannot be imported"),
        ({"BROKERS": {"default": {"BACKEND": "json.dumps"}}}, "is no Backend class"),
        (
            {"BROKERS": {"default": {"OPTIONS": {"capasity": 1}}}},
            r"\['default'\]\['OPTIONS'\].*capasity",
        ),
        ({"BROKERS": {"default": {"OPTIONS": {"capacity": 0}}}}, "OPTIONS.*capacity"),
        ({"BROKERS": {"default": {"RUN": "worker"}}}, "RUN 'worker' needs a backend"),
        ({"CONSUMERS": {"nobody": {"concurrency": 2}}}, "no consumer 'nobody'"),
        ({"CONSUMERS": {"seen": {"concurrency": 0}}}, "'seen'.*concurrency"),
        ({"CONSUMERS": {"seen": {"atomic": "nope"}}}, "'nope' names no database"),
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
