from __future__ import annotations

import py_compile
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from django.core.checks import run_checks
from django.test import override_settings
from django.utils.autoreload import StatReloader, autoreload_started

from django_gomq import ConfigurationError, consumer, site
from django_gomq.bus.registry import registry
from django_gomq.discovery import ConsumersError
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
        if (tmp_path / module.partition(".")[0]).exists():
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


OWN_DOOR = "from django_gomq import consumer"
THROUGH_OWN_DOOR = """
    from gomq_shop.bus import consumer

    @consumer("page.viewed")
    def warm(message): ...

    import gomq_nowhere
"""


def test_a_skipped_file_is_skipped_as_a_whole_and_told_once(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    shop = make_app("gomq_shop", bus=OWN_DOOR, consumers=THROUGH_OWN_DOOR)

    with caplog.at_level("WARNING"), override_settings(GOMQ={}):
        names = discover(shop)

    assert names == []
    (line,) = [one for one in caplog.records if one.name == "gomq.registry"]
    assert line.getMessage().startswith(
        "gomq_shop.consumers was skipped: gomq_nowhere, which it imports, is not "
        "installed"
    )


NEEDS_SDK = f"import gomq_nowhere\n{dedent(CONSUMERS)}"


@pytest.mark.parametrize(
    ("files", "at"),
    [
        ({"consumers": NEEDS_SDK}, "consumers"),
        (
            {"consumers": f"{dedent(CONSUMERS)}\nimport gomq_nowhere.client"},
            "consumers",
        ),
        ({"consumers": "import django_gomq\nimport gomq_nowhere"}, "consumers"),
        (
            {
                "consumers": CONSUMERS + "    from gomq_shop import sdk",
                "sdk": NEEDS_SDK,
            },
            "sdk",
        ),
        (
            {"consumers": "from gomq_shop.handlers import *", "handlers": NEEDS_SDK},
            "handlers",
        ),
        (
            {"consumers": "from django_gomq import consumer\nimport channels.generic"},
            "consumers",
        ),
        ({"consumers": "import django_gomq, channels"}, "consumers"),
    ],
)
def test_a_file_of_ours_that_misses_a_module_stops_the_start(
    make_app: MakeApp, tmp_path: Path, files: dict[str, str], at: str
) -> None:
    shop = make_app("gomq_shop", **files)

    with pytest.raises(ConsumersError, match="ModuleNotFoundError: No mod") as caught:
        discover(shop)

    file = str(tmp_path / "gomq_shop" / f"{at}.py")
    assert "gomq_shop.consumers of app 'gomq_shop'" in str(caught.value)
    assert f"({file}, line " in str(caught.value)
    assert caught.value.filename == file


def test_consumers_of_channels_may_emit(make_app: MakeApp) -> None:
    chat = make_app(
        "gomq_chat", consumers="from django_gomq import emit\nimport channels.generic"
    )

    assert discover(chat) == []


def test_what_has_no_source_and_misses_a_module_stops_the_start(
    make_app: MakeApp, tmp_path: Path
) -> None:
    shop = make_app("gomq_shop", consumers=NEEDS_SDK)
    source = tmp_path / "gomq_shop" / "consumers.py"
    py_compile.compile(str(source), cfile=f"{source}c")
    source.unlink()

    with pytest.raises(ConsumersError, match="No module named 'gomq_nowhere'"):
        discover(shop)


@pytest.mark.parametrize(
    ("services", "line"),
    [("x = 1\nnothing_of_this_name\n", 2), ("\n\n\ndef broken(:", 4)],
)
def test_the_file_at_fault_is_named_though_it_is_another(
    make_app: MakeApp, tmp_path: Path, services: str, line: int
) -> None:
    shop = make_app(
        "gomq_shop", consumers="from gomq_shop import services", services=services
    )

    with pytest.raises(ConsumersError) as caught:
        discover(shop)

    file = tmp_path / "gomq_shop" / "services.py"
    assert f"({file}, line {line}) cannot be imported: " in str(caught.value)
    assert caught.value.filename == str(file)


def test_a_wrong_registration_is_told_with_its_line(
    make_app: MakeApp, tmp_path: Path
) -> None:
    shop = make_app("gomq_shop", consumers=CONSUMERS.replace("message", ""))

    with pytest.raises(ConsumersError) as caught:
        discover(shop)

    assert str(caught.value) == (
        f"gomq_shop.consumers of app 'gomq_shop' ({tmp_path}/gomq_shop/consumers.py, "
        "line 4): Consumer 'gomq_shop.warm': warm() takes no message: write def "
        "warm(message)."
    )


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(dedent(text))


def test_of_a_package_all_modules_are_read_but_those_of_tests(
    make_app: MakeApp, tmp_path: Path
) -> None:
    shop = make_app("gomq_shop")
    package = tmp_path / "gomq_shop" / "consumers"
    one, two, three = (CONSUMERS.replace("warm", name) for name in ("w1", "w2", "w3"))
    write(package, __init__="from . import mails", mails=one, pages=two)
    write(package / "deep", __init__="", orders=three)
    write(package / "tests", test_it="1 / 0", __init__="")
    (package / "conftest.py").write_text("1 / 0")
    (package / "_later.py").write_text("1 / 0")

    assert discover(shop) == [f"gomq_shop.w{n}" for n in (1, 3, 2)]


def test_a_module_of_a_package_is_named_where_it_fails(
    make_app: MakeApp, tmp_path: Path
) -> None:
    shop = make_app("gomq_shop")
    write(tmp_path / "gomq_shop" / "consumers", __init__="", mails="1 / 0")

    with pytest.raises(ConsumersError, match="gomq_shop.consumers.mails of") as caught:
        discover(shop)

    assert caught.value.filename == f"{tmp_path}/gomq_shop/consumers/mails.py"


def test_the_reloader_watches_all_files_that_could_not_be_imported(
    make_app: MakeApp, tmp_path: Path
) -> None:
    shop = make_app(
        "gomq_shop", consumers="from gomq_shop import sdk", sdk="import gomq_nowhere.x"
    )
    reloader = StatReloader()

    discover(shop)
    autoreload_started.send(sender=reloader)

    watched = {str(file) for file in reloader.watched_files()}
    assert {f"{tmp_path}/gomq_shop/{name}.py" for name in ("consumers", "sdk")} <= (
        watched
    )


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
