"""Django's admin: the live page, and dead letters, by whom may."""

from __future__ import annotations

from datetime import datetime
from functools import wraps
from typing import Any, Final

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.views import redirect_to_login
from django.db.models import Max, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, reverse
from django.utils import timezone
from django.utils.html import format_html

from django_gomq.bus.dead_letters import fault_of
from django_gomq.dead_letters import acting, rows
from django_gomq.dead_letters.payload import payload_of
from django_gomq.live.mounting import VIEW, Mount, View, ask_to_log_in, is_poll_of
from django_gomq.live.pages import Pages
from django_gomq.models import Consumer, StoredDeadLetter

_PAYLOAD: Final = "gomq.view_payload"
_REPLAY: Final = "gomq.replay_dead_letters"
_DISCARD: Final = "gomq.discard_dead_letters"
_FILTERED: Final = ("broker", "consumer", "type", "error_type")
_SHOWN: Final = (
    *("id", "broker", "consumer", "type", "message_id", "trace_id", "attempt"),
    *("first_failure", "given_up", "error_type", "error", "calls"),
    "replay_wanted",
)
_MAX_TEXT: Final = 200  # of an object, in Django's log


def _shown_moment(seconds: float) -> datetime:
    """Return a moment that the admin shows in the site's own time."""
    moment = rows.moment_of(seconds)
    if settings.USE_TZ:
        return moment
    return timezone.make_naive(moment, timezone.get_default_timezone())


@admin.register(StoredDeadLetter)
class DeadLetterAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # only in its stubs
    """Nobody adds or edits one; the data of its message has a permission of its own.

    Where several brokers have a database, it shows those that a router leads to, or
    else those of the first broker. Those of memory brokers are beside these.
    """

    list_display = ("id", "given_up", "consumer", "type", "fault", "attempt")
    list_filter = _FILTERED
    search_fields = ("=message_id", "=trace_id", "=id")
    search_help_text = "Id of the message, of its trace, or of the dead letter"
    ordering = ("-id",)
    show_full_result_count = False  # tables grow; a count reads all of them
    actions = ("replay_selected", "discard_selected")

    # ------------------------------------------------------------ who may what

    def has_view_permission(
        self, request: HttpRequest, obj: StoredDeadLetter | None = None
    ) -> bool:
        """Show them where a database keeps those of any broker."""
        return (
            super().has_view_permission(request, obj)
            and rows.shown_database() is not None
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let nobody add one."""
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: StoredDeadLetter | None = None
    ) -> bool:
        """Let nobody edit one."""
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: StoredDeadLetter | None = None
    ) -> bool:
        """Let nobody delete one but by the action, which is logged."""
        return False

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Whether this user may replay them."""
        return request.user.has_perm(_REPLAY)

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Whether this user may discard them."""
        return request.user.has_perm(_DISCARD)

    def lookup_allowed(
        self, lookup: str, value: str, request: HttpRequest | None = None
    ) -> bool:
        """Let addresses filter by the filters alone: by others they would ask data."""
        return lookup.partition("__")[0] in _FILTERED

    # ------------------------------------------------------------ what is shown

    def get_queryset(self, request: HttpRequest) -> QuerySet[StoredDeadLetter]:
        """Return those of the database that has them, what is large when it is read."""
        found = StoredDeadLetter.objects.using(rows.shown_database())
        return found.defer("traceback", "envelope").order_by(*self.ordering)

    def get_fields(
        self, request: HttpRequest, obj: StoredDeadLetter | None = None
    ) -> tuple[str, ...]:
        """Show the data only to whom may see it."""
        return (*_SHOWN, "payload") if request.user.has_perm(_PAYLOAD) else _SHOWN

    def get_readonly_fields(
        self, request: HttpRequest, obj: StoredDeadLetter | None = None
    ) -> tuple[str, ...]:
        """Show all as text."""
        return self.get_fields(request, obj)

    @admin.display(description="given up", ordering="failed")
    def given_up(self, letter: StoredDeadLetter) -> datetime:
        """Return when its last attempt failed."""
        return _shown_moment(letter.failed)

    @admin.display(description="first failed")
    def first_failure(self, letter: StoredDeadLetter) -> datetime:
        """Return when its first attempt failed."""
        return _shown_moment(letter.first_failed)

    @admin.display(description="fault", ordering="error")
    def fault(self, letter: StoredDeadLetter) -> str:
        """Return class and text of its error, without numbers."""
        return fault_of(letter.error)[:_MAX_TEXT]

    @admin.display(description="traceback")
    def calls(self, letter: StoredDeadLetter) -> str:
        """Return the calls that led to its error."""
        return format_html("<pre>{}</pre>", letter.traceback)

    @admin.display(description="payload")
    def payload(self, letter: StoredDeadLetter) -> str:
        """Return the data of its message, as far as it may be seen."""
        return format_html("<pre>{}</pre>", payload_of(letter))

    # ------------------------------------------------------------ what is done

    @admin.action(
        permissions=["replay"], description="Replay selected %(verbose_name_plural)s"
    )
    def replay_selected(
        self, request: HttpRequest, queryset: QuerySet[StoredDeadLetter]
    ) -> None:
        """Hand them to their consumers again."""
        done = acting.replay(request.user, queryset, rows.steps(queryset))
        for level, text in acting.told_of_replay(done):
            self.message_user(request, text, level)

    @admin.action(
        permissions=["discard"], description="Discard selected %(verbose_name_plural)s"
    )
    def discard_selected(
        self, request: HttpRequest, queryset: QuerySet[StoredDeadLetter]
    ) -> HttpResponse | None:
        """Delete them, after they were asked for twice."""
        last = rows.id_in(request.POST.get("last", ""))
        if last is None:
            return self._confirm(request, queryset)
        agreed = queryset.filter(id__lte=last)
        done = acting.discard(request.user, agreed, rows.steps(agreed))
        self.message_user(request, f"{len(done.ids)} discarded.", messages.SUCCESS)
        return None

    def _confirm(
        self, request: HttpRequest, queryset: QuerySet[StoredDeadLetter]
    ) -> HttpResponse:
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": "Discard dead letters",
            "opts": self.opts,
            "media": self.media,
            "count": queryset.count(),
            "last": queryset.order_by().aggregate(Max("id"))["id__max"],
            "checkbox": ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
        }
        return TemplateResponse(request, "gomq/discard_dead_letters.html", context)


class AdminMount(Mount):
    """The live page in an admin: its log-in, its theme, its place."""

    base = "admin/base_site.html"

    def __init__(self, admin_site: admin.AdminSite) -> None:
        self._site = admin_site

    def url_name(self, name: str) -> str:
        """Return the name of a URL: the first page stands for a list of consumers."""
        return _CHANGELIST if name == "live" else f"gomq_{name}"

    def address(self, name: str, *arguments: object) -> str:
        """Return the path of one of the pages, in this admin of several."""
        return self._reverse(self.url_name(name), *arguments)

    def _reverse(self, name: str, *arguments: object) -> str:
        site = self._site.name
        return reverse(f"admin:{name}", args=arguments, current_app=site)

    def context(self, request: HttpRequest) -> dict[str, Any]:
        """Return what the admin's own template wants."""
        home = self._reverse("index")
        return {**self._site.each_context(request), "home": home}

    def guard(self, view: View) -> View:
        """Return the view closed to all whom this admin does not know."""
        closed: View = self._site.admin_view(view)

        @wraps(view)
        def guarded(
            request: HttpRequest, *args: object, **kwargs: object
        ) -> HttpResponseBase:
            if is_poll_of(request) and not self._site.has_permission(request):
                return ask_to_log_in(request, redirect_to_login)
            return closed(request, *args, **kwargs)

        return guarded


_CHANGELIST: Final = "gomq_consumer_changelist"


@admin.register(Consumer)
class ConsumerAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # only in its stubs
    """Has the live page in the place of a list."""

    def get_urls(self) -> list[URLPattern]:
        """Return the pages before the URLs of a list, which they hide."""
        return [*Pages(AdminMount(self.admin_site)).urls(), *super().get_urls()]

    def has_view_permission(
        self, request: HttpRequest, obj: Consumer | None = None
    ) -> bool:
        """Show it to whom the pages are shown."""
        return request.user.has_perm(VIEW)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Let nobody add one: code does."""
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: Consumer | None = None
    ) -> bool:
        """Let nobody edit one."""
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: Consumer | None = None
    ) -> bool:
        """Let nobody delete one."""
        return False
