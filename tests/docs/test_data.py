"""docs/data.md says what events may carry: every row of its tables is tried."""

from __future__ import annotations

import enum
import math
import re
import types
from collections import UserDict, UserString, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from django import forms
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.db.models import F
from django.http import HttpRequest, QueryDict
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from django_gomq import EncodeError, Event, Message
from django_gomq.bus.data.codec import JsonCodec, decode_as
from django_gomq.bus.event import EventMeta
from django_gomq.emitters import adapt
from tests.docs.pasting import ROOT

PAGE: Final = (ROOT / "docs" / "data.md").read_text()
CODE: Final = re.compile(r"`([^`]+)`")
CODEC: Final = JsonCodec(adapt)


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int


class Form(forms.Form):
    name = forms.CharField()


NAMES: Final[dict[str, Any]] = {
    **{one.__name__: one for one in (Colour, Point, Form, UserDict, UserString, deque)},
    **{one.__name__: one for one in (date, datetime, time, timedelta, Decimal, UUID)},
    **{one.__name__: one for one in (Fraction, Path, ip_address, User, ContentFile)},
    **{one.__name__: one for one in (HttpRequest, QueryDict, SafeString)},
    "F": F,
    "MappingProxyType": types.MappingProxyType,
    "gettext_lazy": gettext_lazy,
    "math": math,
    "UTC": UTC,
}


def rows(header: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the table that begins with this cell."""
    table = PAGE.partition(f"\n| {header} |")[2].partition("\n\n")[0]
    for line in table.split("\n")[2:]:
        cells = re.split(r"(?<!\\) \| ", line.strip("| "))
        yield [cell.replace("\\|", "|") for cell in cells]


def value_of(code: str) -> Any:
    return eval(code, dict(NAMES))


def expected(cell: str, passed: str) -> Any:
    found = CODE.search(cell)
    return value_of(found[1] if found else passed)


CARRIED: Final = [
    pytest.param(code, *cells[1:], id=f"{number} {code}")
    for number, cells in enumerate(rows("passed"))
    for code in CODE.findall(cells[0])
]
REFUSED: Final = [code for cells in rows("refused") for code in CODE.findall(cells[0])]


@pytest.mark.parametrize(("code", "plain", "declared", "typed"), CARRIED)
def test_what_is_carried_arrives_as_the_page_says(
    code: str, plain: str, declared: str, typed: str
) -> None:
    annotation = value_of(CODE.findall(declared)[0])
    kind: Any = EventMeta(
        "Carrying",
        (Event,),
        {"__annotations__": {"value": annotation}, "__module__": __name__},
        type="docs.data",
    )

    body = CODEC.encode("docs.data", {"value": value_of(code)})
    typed_body = CODEC.encode_event(kind(value=value_of(code)))

    assert Message[Any]("docs.data", body).data == {"value": expected(plain, code)}
    arrived = decode_as(kind)(Message("docs.data", typed_body)).value
    assert arrived == expected(typed, code)


@pytest.mark.parametrize("code", REFUSED)
def test_what_is_refused_is_refused(code: str) -> None:
    with pytest.raises(EncodeError, match=r"^docs.data, at rows\[1\]"):
        CODEC.encode("docs.data", {"rows": [0, value_of(code)]})


def test_the_error_of_the_page_is_the_error() -> None:
    data = {"lines": [{"price": 1}] * 3 + [{"price": math.nan}]}

    with pytest.raises(EncodeError) as caught:
        CODEC.encode("shop.paid", data)

    assert f"\n{caught.value}\n" in PAGE


def test_the_page_has_rows_of_each_kind() -> None:
    assert len(CARRIED) > 20
    assert len(REFUSED) > 15
