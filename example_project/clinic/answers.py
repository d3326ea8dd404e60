"""Answers that tell what was emitted; what becomes of an event they do not know."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable

from django.http import HttpRequest, HttpResponse

from clinic import told
from django_gomq import Receipt, emit


def tell(response: HttpResponse, receipts: Iterable[Receipt]) -> HttpResponse:
    """Add to the answer what became of each emit; call it after the commit."""
    return _add(response, Counter((r.message.type, str(r.state)) for r in receipts))


def tell_sent(response: HttpResponse, event: str) -> HttpResponse:
    """Add to the answer an event that a model signal emitted."""
    return _add(response, Counter({(event, told.SENT): 1}))


def tell_rolled_back(response: HttpResponse, event: str, count: int) -> HttpResponse:
    """Add to the answer events that were emitted and taken back."""
    return _add(response, Counter({(event, told.ROLLED_BACK): count}))


def _add(response: HttpResponse, new: Counter[tuple[str, str]]) -> HttpResponse:
    known = told.read(response.get(told.HEADER, ""))
    response[told.HEADER] = told.write(known + new)
    return response


def page(
    name: str,
) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """Make a view a page: each time it is shown, `page.viewed` is emitted."""

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @functools.wraps(view)
        def show(request: HttpRequest, **kwargs: object) -> HttpResponse:
            response = view(request, **kwargs)
            if request.method != "GET":
                return response
            return tell(response, [_viewed(name, request)])

        return show

    return decorate


def _viewed(name: str, request: HttpRequest) -> Receipt:
    return emit("page.viewed", {"page": name, "path": request.path})
