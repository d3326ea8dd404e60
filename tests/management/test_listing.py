"""``gomq list`` of a shop with something to say."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

import pytest

from tests.django_site.programs import ROOT
from tests.management.commanding import gomq, run_gomq
from tests.management.golden import check_output

SHOP: Final = {"DJANGO_SETTINGS_MODULE": "tests.management.shop.settings"}


@pytest.fixture(scope="module")
def shop() -> dict[str, Any]:
    """What ``list`` says of the shop, as JSON."""
    done = run_gomq("list", "--format", "json", **SHOP)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def row(rows: list[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    (found,) = [one for one in rows if wanted.items() <= one.items()]
    return found


@pytest.mark.parametrize("form", ["table", "json", "mermaid"])
def test_the_shop_is_listed_as_it_was(form: str) -> None:
    done = run_gomq("list", "--format", form, **SHOP)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    check_output(done.stdout, f"shop.{form}.txt")


def test_the_table_fits_eighty_columns() -> None:
    lines = run_gomq("list", **SHOP).stdout.splitlines()

    assert max(map(len, lines)) <= 80


APP: Final = {
    "__init__.py": "",
    "events.py": """
from django_gomq import Event
class OrderPaid(Event, type="shop.order.paid"): ...
""",
    "consumers.py": """
import shop.events
from django_gomq import consumer
@consumer("shop.order.payed", "page.viewed", name="shop.ledger")
def write(message): ...
""",
    "views.py": """
from django_gomq import emit
from shop.events import OrderPaid
def pay(request):
    emit(OrderPaid())
    emit("page.veiwed")
""",
}


def shop_of(tmp_path: Path, **files: str) -> dict[str, str]:
    """Make an app, and return the environment that has it installed."""
    (tmp_path / "shop").mkdir()
    for name, text in {**APP, **files}.items():
        (tmp_path / "shop" / name).write_text(text)
    (tmp_path / "bare.py").write_text('INSTALLED_APPS = ["django_gomq", "shop"]\n')
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    return {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "bare"}


def test_misspelt_names_are_told_with_what_they_may_mean(tmp_path: Path) -> None:
    done = run_gomq("list", **shop_of(tmp_path))

    warnings = [line for line in done.stdout.splitlines() if "warning" in line]
    assert warnings == [
        "warning: Nobody listens to page.veiwed; did you mean page.viewed?",
        "warning: Nobody listens to shop.order.paid; did you mean shop.order.payed?",
        "warning: Nobody in sight emits to shop.ledger; did you mean shop.order.paid?",
    ]


def test_consumers_that_were_skipped_are_told(tmp_path: Path) -> None:
    environ = shop_of(tmp_path, **{"consumers.py": "import no_such_library_at_all\n"})

    done = run_gomq("list", "--strict", **environ)

    assert done.returncode == 1, done.stderr
    assert (
        "warning: shop.consumers was skipped with all its consumers: \n"
        "  no_such_library_at_all is not installed."
    ).replace(": \n", ":\n") in done.stdout


def test_colours_are_for_those_who_ask() -> None:
    plain = run_gomq("list", **SHOP).stdout
    coloured = run_gomq("list", "--force-color", **SHOP).stdout

    assert "\x1b[" not in plain
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain
    assert re.search(r"\x1b\[[\d;]+mwarning: Nobody listens", coloured)


def test_an_event_names_its_class_broker_emitters_and_consumers(
    shop: dict[str, Any],
) -> None:
    assert row(shop["events"], type="shop.order.paid") == {
        "type": "shop.order.paid",
        "version": 2,
        "classes": ["tests.management.shop.orders.events.OrderPaid"],
        "declared": ["class", "consumer"],
        "may_be_unheard": False,
        "broker": "default",
        "consumers": ["orders.audit", "orders.ledger"],
        "emitters": [
            {
                "file": "tests/management/shop/orders/paying.py",
                "line": line,
                "call": call,
                "text": text,
            }
            for line, call, text in [
                (18, "emit_many", "(OrderPaid(order_id=one) for one in order_ids)"),
                (26, "emit", "order"),
            ]
        ],
    }


def test_events_are_known_by_class_settings_consumer_or_emit(
    shop: dict[str, Any],
) -> None:
    declared = {one["type"]: one["declared"] for one in shop["events"]}

    assert declared == {
        "billing.draft.saved": ["class"],
        "billing.invoice.sent": ["emit"],
        "cart.cleared": ["class"],
        "legacy.import.done": ["consumer"],
        "page.viewed": ["settings", "consumer"],
        "shop.customer.created": ["emit"],
        "shop.customer.gone": ["emit"],
        "shop.order.paid": ["class", "consumer"],
        "shop.stock.counted": ["emit"],
        "stock.low": ["class"],
    }


def test_what_tests_and_migrations_emit_is_not_the_projects(
    shop: dict[str, Any],
) -> None:
    files = {one["file"] for event in shop["events"] for one in event["emitters"]}

    assert files == {
        "tests/management/shop/orders/apps.py",
        "tests/management/shop/orders/paying.py",
        "tests/management/shop/urls.py",
    }


def test_a_consumer_tells_what_differs_from_the_default(shop: dict[str, Any]) -> None:
    options = {one["name"]: one["options"] for one in shop["consumers"]}

    assert options == {
        "orders.audit": {"batch": 500, "linger": 0.2},
        "orders.ledger": {"concurrency": 2, "retry": {"attempts": 3}},
        "orders.legacy": {
            "retry": {"attempts": 5, "retry_on": ["OSError", "KeyError"]}
        },
        "orders.off": {"enabled": False},
        "orders.pages": {"capacity": 50, "overflow": "drop_oldest"},
    }


def test_brokers_and_routes_follow_the_settings(shop: dict[str, Any]) -> None:
    billing = row(shop["brokers"], alias="billing")
    invoice = row(shop["events"], type="billing.invoice.sent")
    draft = row(shop["events"], type="billing.draft.saved")
    audit = row(shop["consumers"], name="orders.audit")

    assert (billing["run"], billing["capacity"]) == ("never", 50)
    assert (invoice["broker"], draft["broker"]) == ("billing", "default")
    assert audit["brokers"] == ["billing", "default"]
    assert [one["pattern"] for one in shop["routes"]] == [
        "billing.draft.saved",
        "billing.*",
        "*",
    ]


def test_who_has_no_other_side_is_a_warning(shop: dict[str, Any]) -> None:
    warnings = {(one["kind"], one["subject"]) for one in shop["warnings"]}

    assert warnings == {
        ("no_consumer", "stock.low"),
        ("no_emitter", "orders.legacy"),
        ("not_a_type", "tests/management/shop/orders/paying.py:28"),
    }


def test_strict_makes_warnings_an_exit_code() -> None:
    done = gomq("list", "--strict")

    assert done.returncode == 1
    assert "warning: " in done.stdout


def test_where_nobody_emits_and_nobody_listens_there_is_nothing_to_warn_of(
    tmp_path: Path,
) -> None:
    (tmp_path / "bare.py").write_text('INSTALLED_APPS = ["django_gomq"]\n')

    done = run_gomq(
        "list", "--strict", "--pythonpath", str(tmp_path), "--settings", "bare"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Brokers\n")


def test_an_unknown_format_is_refused_with_those_there_are() -> None:
    done = gomq("list", "--format", "xml")

    assert done.returncode == 2
    assert "mermaid" in done.stderr


@pytest.mark.parametrize(
    ("folder", "events"), [("site-packages", []), ("plugins", ["vendor.greeted"])]
)
def test_what_an_installed_package_emits_is_not_the_projects(
    tmp_path: Path, folder: str, events: list[str]
) -> None:
    package = tmp_path / folder / "vendor"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "views.py").write_text(
        'import django_gomq\ndjango_gomq.emit("vendor.greeted")\n'
    )
    (tmp_path / "bare.py").write_text('INSTALLED_APPS = ["django_gomq", "vendor"]\n')
    path = os.pathsep.join([str(ROOT), str(tmp_path), str(package.parent)])

    done = run_gomq(
        "list", "--format", "json", PYTHONPATH=path, DJANGO_SETTINGS_MODULE="bare"
    )

    assert done.returncode == 0, done.stderr
    assert [one["type"] for one in json.loads(done.stdout)["events"]] == events
