"""Where the pages are mounted, and who may see and do what there."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final
from urllib.parse import quote

import msgspec
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseForbidden,
)
from django.urls import reverse
from django.utils.module_loading import import_string
from django.views.decorators.cache import never_cache

View = Callable[..., HttpResponseBase]

VIEW: Final = "gomq.view_recordedconsumer"
PAUSE: Final = "gomq.pause_consumer"
RESIZE: Final = "gomq.resize_consumer"
VIEW_LETTERS: Final = "gomq.view_storeddeadletter"
VIEW_PAYLOAD: Final = "gomq.view_payload"
REPLAY: Final = "gomq.replay_dead_letters"
DISCARD: Final = "gomq.discard_dead_letters"
VIEW_MESSAGE: Final = "gomq.view_message"


_NO_USERS: Final = (
    "This page is for staff, and the site knows no users: it needs django.contrib.auth "
    "and django.contrib.sessions in INSTALLED_APPS, and their middleware. "
    "`manage.py gomq stats --watch` shows the numbers without any of these.\n"
)

POLL_HEADER: Final = "HX-Request"
"""What htmx sends with each request."""


def is_poll_of(request: HttpRequest) -> bool:
    """Whether a page that is open already asks, for what is in it."""
    return request.headers.get(POLL_HEADER) == "true"


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What one user may do on these pages."""

    pause: bool
    resize: bool
    letters: bool
    payload: bool
    replay: bool
    discard: bool
    message: bool
    """To see the data of sampled messages."""


def rights_of(request: HttpRequest) -> Rights:
    """Return what the user of a request may do; asks for permissions once."""
    has = request.user.has_perm
    return Rights(
        pause=has(PAUSE),
        resize=has(RESIZE),
        letters=has(VIEW_LETTERS),
        payload=has(VIEW_PAYLOAD),
        replay=has(REPLAY),
        discard=has(DISCARD),
        message=has(VIEW_MESSAGE),
    )


def require(request: HttpRequest, *permissions: str) -> None:
    """Raise PermissionDenied where the user has not all of these."""
    if not request.user.has_perms(permissions):
        raise PermissionDenied


CONSUMER_ROUTE: Final = "consumers/<path:broker>/<str:name>/"


def consumer_address(root: str, broker: str, name: str) -> str:
    """Return the path of the page of a consumer, below that of the first page.

    What ``Mount.address`` returns, for pages that have many of them.
    """
    return f"{root}consumers/{quote(broker)}/{quote(name)}/"


class Mount:
    """A place in a site's URLs; this one is for sites without admin.

    Its views are closed to all but active staff. Thread-safe, as it keeps nothing.
    """

    base = "gomq/live/site.html"
    """The template that the pages extend."""

    def address(self, name: str, *arguments: object) -> str:
        """Return the path of one of the pages."""
        return reverse(f"gomq:{name}", args=arguments)

    def url_name(self, name: str) -> str:
        """Return the name of the URL of one of the pages, as the URLconf has it."""
        return name

    def context(self, request: HttpRequest) -> dict[str, Any]:
        """Return what the template of this place wants."""
        return {}

    def guard(self, view: View) -> View:
        """Return the view closed to all but staff."""

        @wraps(view)
        def guarded(
            request: HttpRequest, *args: object, **kwargs: object
        ) -> HttpResponseBase:
            user = getattr(request, "user", None)
            if user is None:  # without the middleware nobody is anybody
                return HttpResponseForbidden(_NO_USERS, content_type="text/plain")
            if not user.is_authenticated:
                return ask_to_log_in(request, _send_to_log_in)
            if not (user.is_active and getattr(user, "is_staff", False)):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        # It sends to the log-in itself; the middleware would do so before it.
        return login_not_required(never_cache(guarded))


def ask_to_log_in(
    request: HttpRequest, redirect: Callable[[str], HttpResponseBase]
) -> HttpResponseBase:
    """Return the way to the log-in; a page that is open loads itself anew for that."""
    if is_poll_of(request):
        return HttpResponse(status=204, headers={"HX-Refresh": "true"})
    return redirect(request.get_full_path())


def _send_to_log_in(path: str) -> HttpResponseBase:
    # Its module needs the models of django.contrib.auth, which not every site has.
    send = import_string("django.contrib.auth.views.redirect_to_login")
    answer: HttpResponseBase = send(path)
    return answer
