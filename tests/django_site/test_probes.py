"""The probes and the metrics page behind what a site puts before its own pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings

from django_gomq import views
from django_gomq.middleware import ProbeMiddleware
from tests.django_site.conftest import UseSite
from tests.django_site.programs import run_program

OURS = "django_gomq.middleware.ProbeMiddleware"
PAGES = ("metrics", "livez", "readyz")
POD = "10.42.8.201:8000"
LOGGED_IN_ONLY = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]
REFUSERS: Mapping[str, dict[str, Any]] = {
    "a host that is not allowed": {
        "MIDDLEWARE": [OURS, "django.middleware.common.CommonMiddleware"],
        "ALLOWED_HOSTS": ["www.example.org"],
    },
    "a redirect to https": {
        "MIDDLEWARE": [OURS, "django.middleware.security.SecurityMiddleware"],
        "SECURE_SSL_REDIRECT": True,
    },
    "maintenance": {"MIDDLEWARE": [OURS, f"{__name__}.close_for_maintenance"]},
    "a log-in": {
        "MIDDLEWARE": [OURS, *LOGGED_IN_ONLY],
        "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    },
    "a log-in, without our middleware": {
        "MIDDLEWARE": LOGGED_IN_ONLY,
        "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    },
}


def close_for_maintenance(get_response: object) -> Callable[..., HttpResponse]:
    def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse("Back soon.", status=503)

    return answer


def test_the_app_puts_the_middleware_first() -> None:
    assert settings.MIDDLEWARE[0] == OURS


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("refuser", REFUSERS)
def test_nothing_that_a_site_puts_before_its_pages_keeps_probes_from_answers(
    use_site: UseSite, refuser: str, page: str
) -> None:
    use_site()

    with override_settings(**REFUSERS[refuser]):
        response = Client().get(f"/gomq/{page}", headers={"host": POD})

    assert response.status_code == 200


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("refuser", REFUSERS)
def test_probes_answer_under_asgi_too(
    use_site: UseSite, refuser: str, page: str
) -> None:
    use_site()

    async def get() -> int:
        response = await AsyncClient().get(f"/gomq/{page}", headers={"host": POD})
        return response.status_code

    with override_settings(**REFUSERS[refuser]):
        assert asyncio.run(get()) == 200


@pytest.mark.parametrize("page", PAGES)
def test_a_database_that_is_away_keeps_no_probe_from_its_answer(
    use_site: UseSite, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    use_site()
    # No test without a mark has a database: a transaction would raise.
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    assert Client().get(f"/gomq/{page}").status_code == 200


def test_every_other_request_goes_on(use_site: UseSite) -> None:
    use_site()

    with override_settings(**REFUSERS["maintenance"]):
        paths = ["/save", "/gomq/", "/gomq/unknown", "/other/livez", "/metrics"]
        answers = [Client().get(path).status_code for path in paths]

    assert answers == [503] * 5


def test_a_page_for_staff_goes_on_to_what_knows_who_is_staff(use_site: UseSite) -> None:
    use_site(METRICS={"ACCESS": "staff"})
    request = RequestFactory().get("/gomq/metrics")

    def know_the_user(request: HttpRequest) -> HttpResponse:
        request.user = User(username="nurse", is_staff=True)
        return views.metrics(request)

    response = ProbeMiddleware(know_the_user)(request)

    assert isinstance(response, HttpResponse)
    assert response.status_code == 200


def test_the_token_is_asked_for_before_everything_else(use_site: UseSite) -> None:
    use_site(METRICS={"ACCESS": "token", "TOKEN": "secret"})

    with override_settings(**REFUSERS["maintenance"]):
        refused = Client().get("/gomq/metrics")
        shown = Client().get(
            "/gomq/metrics", headers={"authorization": "BEARER secret"}
        )

    assert (refused.status_code, shown.status_code) == (401, 200)


@pytest.mark.parametrize("link", PAGES)
def test_the_start_page_links_to_the_others(use_site: UseSite, link: str) -> None:
    use_site()

    page = Client().get("/gomq/").content.decode()

    assert f'href="{link}"' in page
    assert 'name="viewport"' in page


@pytest.mark.parametrize(
    ("access", "status"),
    [
        ({"ACCESS": "open"}, 200),
        ({"ACCESS": "token", "TOKEN": "secret"}, 401),
        ({"ACCESS": "staff"}, 403),
    ],
)
def test_the_start_page_is_for_those_who_may_read_the_metrics(
    use_site: UseSite, access: dict[str, str], status: int
) -> None:
    use_site(METRICS=access)

    assert Client().get("/gomq/").status_code == status


ONE_FILE = """
from django.urls import include, path
urlpatterns = [path("gomq/", include("django_gomq.urls"))]

import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_gomq"], ROOT_URLCONF="__main__", ALLOWED_HOSTS=["a.org"]
)
django.setup()
from django.test import Client
pages = ("", "livez", "readyz", "metrics")
print([Client().get(f"/gomq/{one}", HTTP_HOST="a.org").status_code for one in pages])
for line in Client().get("/gomq/live/", HTTP_HOST="a.org"):
    print(line.decode())
"""


def test_a_project_in_one_file_includes_the_pages_before_it_is_set_up() -> None:
    done = run_program(ONE_FILE, DJANGO_SETTINGS_MODULE="")

    assert done.stdout.startswith("[200, 200, 200, 200]\n"), done.stderr
    # The live page, which alone needs users, says so and breaks nothing else.
    assert "it needs django.contrib.auth" in done.stdout
