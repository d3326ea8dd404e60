from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from django_gomq import ConfigurationError, consumer, site
from django_gomq.bus.registry import registry
from django_gomq.site import brokers
from tests.django_site.conftest import UseSite

MakeApp = Callable[..., str]


@pytest.fixture
def make_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_registry: None
) -> Iterator[MakeApp]:
    """Writes apps, which can be installed under their names."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def make(name: str, **files: str) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        for module, text in files.items():
            (tmp_path / name / f"{module}.py").write_text(dedent(text))
        return name

    yield make
    for module in set(sys.modules) - before:
        del sys.modules[module]


def discover(*apps: str, **gomq: object) -> list[str]:
    with (
        override_settings(GOMQ=gomq),
        override_settings(INSTALLED_APPS=["django_gomq", *apps]),
    ):
        assert brokers.site is not None
        return [one.name for one in brokers.site.consumers]


CONSUMERS = """
    from django_gomq import consumer

    @consumer("page.viewed")
    def warm(message): ...
"""


def test_the_consumers_of_every_app_are_found(make_app: MakeApp) -> None:
    shop = make_app("gomq_shop", consumers=CONSUMERS)
    bare = make_app("gomq_bare")

    names = discover(shop, bare)

    assert names == ["gomq_shop.warm"]


def test_a_default_name_starts_with_the_apps_label(make_app: MakeApp) -> None:
    apps = """
        from django.apps import AppConfig

        class ShopConfig(AppConfig):
            name = "gomq_shop"
            label = "billing"
    """
    shop = make_app("gomq_shop", consumers=CONSUMERS, apps=apps)

    assert discover(shop) == ["billing.warm"]


def test_the_names_of_the_modules_are_a_setting(make_app: MakeApp) -> None:
    shop = make_app("gomq_shop", handlers=CONSUMERS)

    assert discover(shop, AUTODISCOVER=["handlers"]) == ["gomq_shop.warm"]


def test_a_dotted_module_that_an_app_has_not_is_no_error(make_app: MakeApp) -> None:
    shop = make_app("gomq_shop")

    assert discover(shop, AUTODISCOVER=["events.consumers"]) == []


def test_an_app_that_is_one_file_is_no_error(make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "gomq_one_file.py").touch()

    assert discover("gomq_one_file") == []


def test_an_excluded_app_is_not_imported(make_app: MakeApp) -> None:
    shop = make_app("gomq_shop", consumers="1 / 0")

    assert discover(shop, AUTODISCOVER_EXCLUDE=["gomq_shop"]) == []


def test_two_consumers_of_one_name_are_refused_with_both_places(
    make_app: MakeApp,
) -> None:
    named = CONSUMERS.replace('"page.viewed"', '"page.viewed", name="warm"')
    make_app("gomq_shop", consumers=named)
    make_app("gomq_blog", consumers=named)

    with pytest.raises(ConfigurationError) as caught:
        discover("gomq_shop", "gomq_blog")

    assert "gomq_shop.consumers.warm" in str(caught.value)
    assert "gomq_blog.consumers.warm" in str(caught.value)


def test_a_file_that_needs_a_module_nobody_installed_is_skipped_with_a_warning(
    make_app: MakeApp,
) -> None:
    make_app("gomq_chat", consumers="from gomq_channels_x.generic import Consumer")
    make_app("gomq_shop", consumers=CONSUMERS)

    with override_settings(INSTALLED_APPS=["django_gomq", "gomq_chat", "gomq_shop"]):
        site.renew()
        assert brokers.site is not None
        names = [one.name for one in brokers.site.consumers]
        warnings = [one for one in run_checks(tags=["gomq"]) if one.id == "gomq.W001"]

    assert names == ["gomq_shop.warm"]
    assert len(warnings) == 1
    assert "gomq_chat.consumers" in warnings[0].msg
    assert "gomq_channels_x" in warnings[0].msg
    assert "AUTODISCOVER_EXCLUDE" in (warnings[0].hint or "")


def test_a_skipped_file_is_skipped_as_a_whole(make_app: MakeApp) -> None:
    make_app("gomq_chat", consumers=dedent(CONSUMERS) + "\nimport gomq_nowhere")

    assert discover("gomq_chat") == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("from .models_ import Order", "ModuleNotFoundError"),
        ("from . import nothing", "ImportError"),
        ("from gomq_shop.nowhere import x", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        ("from json import nothing", "ImportError"),
    ],
)
def test_any_other_error_names_app_file_and_setting(
    make_app: MakeApp, tmp_path: Path, text: str, error: str
) -> None:
    make_app("gomq_shop", consumers=text)

    with pytest.raises(ConfigurationError) as caught:
        discover("gomq_shop")

    complaint = str(caught.value)
    assert error in complaint
    assert "gomq_shop.consumers of app 'gomq_shop'" in complaint
    assert str(tmp_path / "gomq_shop") in complaint
    assert "AUTODISCOVER" in complaint


def test_registrations_can_be_put_back_after_a_test(use_site: UseSite) -> None:
    before = registry.snapshot()
    consumer("page.viewed", name="extra")(print)

    registry.restore(before)

    assert registry.consumers() == []


def test_the_sites_own_consumers_are_discovered() -> None:
    assert brokers.site is not None

    names = {one.name for one in brokers.site.consumers}

    assert {"clinic.statistics", "clinic.audit"} <= names
