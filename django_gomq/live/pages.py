"""The pages, mounted at one place: what each shows, and what its forms do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from http import HTTPStatus
from typing import Any, Final

from django.contrib import messages
from django.contrib.messages import get_messages
from django.db import Error
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseRedirect,
)
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.http import urlencode
from django.views.decorators.http import require_POST, require_safe

from django_gomq.bus.errors import describe_error
from django_gomq.dead_letters import acting
from django_gomq.dead_letters.chosen import Chosen
from django_gomq.models import StoredDeadLetter
from django_gomq.site import brokers

from . import (
    acts,
    amounts,
    consumer_page,
    letters,
    map_page,
    messages_page,
    overview,
    tree_page,
)
from .mounting import (
    CONSUMER_ROUTE,
    DISCARD,
    POLL_HEADER,
    REPLAY,
    VIEW,
    VIEW_LETTERS,
    Mount,
    Rights,
    is_poll_of,
    require,
    rights_of,
)
from .readings import read, read_times

_TITLE: Final = "Event bus"
_WORDS: Final = {"replay": REPLAY, "discard": DISCARD}
"""What may be done to dead letters, and what who does it has to be allowed to."""
_View = Callable[..., HttpResponse]


class Pages:
    """The live page and those beside it, at one mount."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount

    def urls(self) -> list[URLPattern]:
        """Return the URLs, all of them closed as the mount says."""
        shown: Mapping[str, tuple[str, _View]] = {
            "live": ("", self._overview),
            "live_consumer": (CONSUMER_ROUTE, self._consumer),
            "live_dead_letters": ("dead-letters/", self._letters),
            "live_dead_letter": ("dead-letters/<int:number>/", self._letter),
            "live_messages": ("messages/", self._messages),
            "live_map": ("map/", self._map),
            "live_tree": ("tree/", self._tree),
        }
        posted: Mapping[str, tuple[str, _View]] = {
            "live_act": ("act/", self._act),
            "live_dead_letters_act": ("dead-letters/act/", self._act_on_letters),
        }
        urls = [
            self._url(name, route, require_safe(view))
            for name, (route, view) in shown.items()
        ]
        urls += [
            self._url(name, route, require_POST(view))
            for name, (route, view) in posted.items()
        ]
        return urls

    def _url(self, name: str, route: str, view: _View) -> URLPattern:
        closed = self._mount.guard(self._telling(view))
        return path(route, closed, name=self._mount.url_name(name))

    def _telling(self, view: _View) -> _View:
        """Return a view that says so where the database cannot be read."""

        @wraps(view)
        def told(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
            try:
                return view(request, *args, **kwargs)
            except Error as error:
                return self._render(
                    request,
                    "away",
                    polls=is_poll_of(request),
                    status=HTTPStatus.SERVICE_UNAVAILABLE,
                    problem=describe_error(error),
                )

        return told

    # ------------------------------------------------------------ pages

    def _overview(self, request: HttpRequest) -> HttpResponse:
        require(request, VIEW)
        shown = overview.context(read(), self._mount.address("live"))
        return self._render(request, "overview", polls=True, tab="live", **shown)

    def _consumer(self, request: HttpRequest, broker: str, name: str) -> HttpResponse:
        require(request, VIEW)
        reading, site = read(), brokers.site
        found = next(
            (
                consumer
                for consumer in reading.consumers
                if (consumer.broker, consumer.consumer) == (broker, name)
            ),
            None,
        )
        if found is None or site is None:
            raise Http404(f"No consumer {name} at broker {broker}.")
        shown = consumer_page.context(
            site,
            reading,
            found,
            read_times(broker, name),
            rights_of(request),
            self._mount,
        )
        return self._render(request, "consumer", title=name, polls=True, **shown)

    def _letters(self, request: HttpRequest) -> HttpResponse:
        require(request, VIEW, VIEW_LETTERS)
        consumer = request.GET.get("consumer")
        rights = rights_of(request)
        return self._render(
            request,
            "dead_letters",
            tab="dead letters",
            title="Dead letters",
            consumer=consumer,
            act="live_dead_letters_act",
            **letters.context(letters.letters(consumer), rights, self._mount),
        )

    def _letter(self, request: HttpRequest, number: int) -> HttpResponse:
        require(request, VIEW, VIEW_LETTERS)
        found = letters.letters()
        letter = None if found is None else found.filter(pk=number).first()
        if found is None or letter is None:
            raise Http404(f"No dead letter {number}: replayed, discarded, or trimmed.")
        rights = rights_of(request)
        return self._render(
            request,
            "dead_letter",
            tab="dead letter",
            title=f"Dead letter {number}",
            act="live_dead_letters_act",
            letter=letters.shown(letter, rights, self._mount),
            others=letters.same_fault(found, letter, self._mount),
        )

    def _messages(self, request: HttpRequest) -> HttpResponse:
        require(request, VIEW)
        site = brokers.site
        if site is None:
            raise Http404("django_gomq is not set up.")
        return self._render(
            request,
            "messages",
            tab="messages",
            title="Messages",
            polls=True,
            **messages_page.context(site, request.GET, rights_of(request), self._mount),
        )

    def _map(self, request: HttpRequest) -> HttpResponse:
        require(request, VIEW)
        site = brokers.site
        if site is None:
            raise Http404("django_gomq is not set up.")
        return self._render(
            request,
            "map",
            tab="map",
            title="Who emits, who listens",
            **map_page.context(site, self._mount),
        )

    def _tree(self, request: HttpRequest) -> HttpResponse:
        require(request, VIEW)
        asked = request.GET.get(tree_page.PARAMETER, "")
        return self._render(
            request,
            "tree",
            tab="tree",
            title="Message tree",
            **tree_page.context(asked, rights_of(request), self._mount),
        )

    # ------------------------------------------------------------ acts

    def _act(self, request: HttpRequest) -> HttpResponse:
        """Pause, resume or resize; answer with the page it was done on."""
        require(request, VIEW)
        try:
            act = acts.asked_for(request.POST)
        except ValueError as error:
            return HttpResponseBadRequest(f"{error}\n", content_type="text/plain")
        require(request, act.permission)
        acts.carry_out(act, request)
        is_of_consumer = request.POST.get("page") == "consumer"
        if is_poll_of(request):
            if is_of_consumer:
                return self._consumer(request, act.broker, act.consumer)
            return self._overview(request)
        if is_of_consumer:
            back = self._mount.address("live_consumer", act.broker, act.consumer)
        else:
            back = self._mount.address("live")
        return HttpResponseRedirect(back)

    def _act_on_letters(self, request: HttpRequest) -> HttpResponse:
        """Replay or discard what was chosen; discarding asks before, on its page."""
        require(request, VIEW, VIEW_LETTERS)
        try:
            word, is_all = _asked_in(request.POST)
            chosen = letters.chosen_in(request.POST, is_all=is_all)
        except ValueError as error:
            return HttpResponseBadRequest(f"{error}\n", content_type="text/plain")
        require(request, _WORDS[word])
        consumer = request.POST.get("consumer")
        found = letters.letters(consumer)
        if found is None:
            raise Http404("No database of this site keeps dead letters.")
        if not chosen:
            messages.warning(request, "Nothing is chosen.", fail_silently=True)
        elif word == "replay":
            done = acting.replay(request.user, found, chosen.steps(found))
            for level, text in acting.told_of_replay(done):
                messages.add_message(request, level, text, fail_silently=True)
        elif "agreed" in request.POST:
            done = acting.discard(request.user, found, chosen.steps(found))
            text = f"{len(done.ids)} discarded."
            messages.success(request, text, fail_silently=True)
        else:
            return self._confirm(request, found, chosen)
        asked = "?" + urlencode({"consumer": consumer}) if consumer else ""
        return HttpResponseRedirect(self._mount.address("live_dead_letters") + asked)

    def _confirm(
        self, request: HttpRequest, found: QuerySet[StoredDeadLetter], chosen: Chosen
    ) -> HttpResponse:
        number = letters.count_chosen(chosen, found)
        fields = list(letters.fields_of(chosen))
        if consumer := request.POST.get("consumer"):
            fields.append(("consumer", consumer))
        return self._render(
            request,
            "discard",
            title="Discard dead letters",
            act="live_dead_letters_act",
            number=number,
            count=amounts.count(number),
            fields=fields,
        )

    # ------------------------------------------------------------ templates

    def _render(
        self,
        request: HttpRequest,
        name: str,
        *,
        title: str = _TITLE,
        act: str = "live_act",
        polls: bool = False,
        status: HTTPStatus = HTTPStatus.OK,
        **shown: Any,
    ) -> HttpResponse:
        """Return a page; for a poll only what is in it."""
        rights = rights_of(request)
        may_count = rights.letters and status == HTTPStatus.OK
        found = letters.letters() if may_count else None
        fragment = f"gomq/live/_{name}.html"
        context = {
            **shown,
            "title": title,
            "time": f"{datetime.now(timezone.get_current_timezone()):%H:%M:%S}",
            "may": rights,
            "dead_letters": None if found is None else letters.counted(found),
            "told": list(get_messages(request)),
            "links": self._links(act, rights),
        }
        is_poll = polls and is_poll_of(request)
        if not is_poll:
            context = {
                **self._mount.context(request),
                **context,
                "base": self._mount.base,
                "fragment": fragment,
                "polls": polls,
            }
        template = fragment if is_poll else "gomq/live/page.html"
        response = render(request, template, context, status=status)
        patch_vary_headers(response, [POLL_HEADER])
        return response

    def _links(self, act: str, rights: Rights) -> Mapping[str, str | None]:
        address = self._mount.address
        return {
            "live": address("live"),
            "dead_letters": address("live_dead_letters") if rights.letters else None,
            "messages": address("live_messages"),
            "map": address("live_map"),
            "tree": address("live_tree"),
            "act": address(act),
        }


def _asked_in(form: Mapping[str, object]) -> tuple[str, bool]:
    """Return what is to be done, and whether to all; raises ValueError for neither."""
    word, _, extent = str(form.get("do", "")).partition(" ")
    if word not in _WORDS or extent not in ("", "all"):
        raise ValueError("The form says neither replay nor discard.")
    return word, extent == "all"
