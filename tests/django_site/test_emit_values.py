"""What Django makes is data: safe and lazy texts, errors of forms, posted forms."""

from __future__ import annotations

from typing import Any

import pytest
from django import forms
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.db.models import Count, F
from django.http import QueryDict
from django.template import Context, Engine
from django.utils.functional import SimpleLazyObject, lazy
from django.utils.html import format_html
from django.utils.translation import gettext_lazy

from django_gomq import EncodeError, Event, consumer, emit
from tests.django_site.conftest import UseSite
from tests.django_site.waiting import wait_until


class MailRendered(Event, type="emit_values.mail_rendered"):
    html: str
    errors: dict[str, list[str]] = {}  # noqa: RUF012 - msgspec copies it


class Question(forms.Form):
    name = forms.CharField()
    age = forms.IntegerField()


def errors() -> Any:
    return Question({"age": "x"}).errors


ERRORS = {"name": ["This field is required."], "age": ["Enter a whole number."]}


def rendered() -> Any:
    template = Engine().from_string("<b>{{ name }}</b>")
    return template.render(Context({"name": "Ann"}))


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (rendered(), "<b>Ann</b>"),
        (format_html("<b>{}</b>", "Ann"), "<b>Ann</b>"),
        (gettext_lazy("yes"), "yes"),
        (lazy(lambda: 5, int)(), 5),
        (lazy(lambda: [1.5], list)(), [1.5]),
        (SimpleLazyObject(lambda: "Ann"), "Ann"),
        (SimpleLazyObject(lambda: 5), 5),
        (SimpleLazyObject(lambda: {"a": gettext_lazy("yes")}), {"a": "yes"}),
        (errors(), ERRORS),
        (SimpleLazyObject(errors), ERRORS),
        (QueryDict("a=1&a=2&b="), {"a": ["1", "2"], "b": [""]}),
    ],
    ids=[
        *("template", "html", "lazy text", "lazy int", "lazy list", "object of a text"),
        *("object of an int", "object of a dict", "errors", "lazy errors", "post"),
    ],
)
def test_what_django_makes_arrives_as_data(
    live_site: UseSite, value: Any, arrives: object
) -> None:
    seen: list[Any] = []
    consumer("page.viewed", name="reads")(lambda message: seen.append(message.data))
    live_site()

    emit("page.viewed", {"value": value})

    wait_until(lambda: seen)
    assert seen == [{"value": arrives}]


def test_what_django_makes_arrives_in_fields(live_site: UseSite) -> None:
    seen: list[Any] = []
    consumer(MailRendered, name="reads")(lambda message: seen.append(message.data))
    live_site()

    emit(MailRendered(html=rendered(), errors=errors()))

    wait_until(lambda: seen)
    assert seen == [MailRendered(html="<b>Ann</b>", errors=ERRORS)]


def fail() -> Any:
    raise LookupError("no such text")


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (SimpleLazyObject(lambda: User(pk=1)), "User is a model instance: emit its pk"),
        (User.objects, "UserManager is not data: emit list"),
        (Question(), "Question is a form: emit its cleaned_data"),
        (F("stock") - 1, "CombinedExpression is an expression for the database"),
        (F("stock"), "F is an expression for the database: emit the value"),
        (Count("pk"), "Count is an expression for the database"),
        (ContentFile(b""), "ContentFile is a file: emit its name"),
        (SimpleLazyObject(fail), "LookupError: no such text"),
        (lazy(fail, str)(), "LookupError: no such text"),
    ],
    ids=[
        *("model", "manager", "form", "sum", "field", "aggregate", "file"),
        *("object that fails", "text that fails"),
    ],
)
def test_what_is_no_data_is_refused_with_its_path(
    use_site: UseSite, value: object, advice: str
) -> None:
    use_site()

    with pytest.raises(EncodeError, match=rf"^page.viewed, at rows\[1\]: .*{advice}"):
        emit("page.viewed", {"rows": [0, value]})
