"""The flowchart is one that Mermaid reads, whatever names stand in it."""

from __future__ import annotations

import html
import re
from typing import Any, Final

import pytest
from msgspec.structs import replace

from django_gomq.listing.overview import (
    BrokerRow,
    ConsumerRow,
    EmitCall,
    EventRow,
    Overview,
    WarningRow,
)
from django_gomq.management.listing.render import as_mermaid

# The part of Mermaid's grammar that is used: quoted texts hold neither quotes nor what
# begins a directive, so that nothing in them can end them.
TEXT: Final = r'"(?P<text>[^"%<>`]+)"'
COMMENT: Final = re.compile(r"%% [^{}]*")
NODE: Final = re.compile(rf"(?P<id>[a-z]+\d+)(?P<shape>\[|\(\[|\[\[){TEXT}[\])]+")
FRAME: Final = re.compile(rf"subgraph [a-z]+\d+\[{TEXT}\]")
EDGE: Final = re.compile(
    rf"(?P<start>[a-z]+\d+) (?P<arrow>-->|-\.->)(\|{TEXT}\|)? (?P<end>[a-z]+\d+)"
)

EVIL: Final = """f"a{x}" <b>#1;</b> & `y` \\n %%{init: {}}%% |]) --> ' end"""


def read(chart: str) -> tuple[dict[str, str], set[tuple[str, str, str]]]:
    """Return the texts of the nodes by id, and the edges; fail on anything else."""
    first, *lines = chart.splitlines()
    assert first == "flowchart LR"
    nodes: dict[str, str] = {}
    edges = set()
    for line in map(str.strip, lines):
        node, edge = NODE.fullmatch(line), EDGE.fullmatch(line)
        if node:
            nodes[node["id"]] = shown(node["text"])
        elif edge:
            assert {edge["start"], edge["end"]} <= nodes.keys(), line
            edges.add((edge["start"], edge["arrow"], edge["end"]))
        else:
            assert line == "end" or COMMENT.fullmatch(line) or FRAME.fullmatch(line)
    return nodes, edges


def shown(text: str) -> str:
    """Return a text as Mermaid draws it: its entities are HTML's, but for the &."""
    return html.unescape(re.sub(r"#(\d+);", r"&#\1;", text))


def emitter(text: str = "x", file: str = "shop/views.py") -> EmitCall:
    return EmitCall(file, 3, "emit", text)


def event(name: str, **more: Any) -> EventRow:
    row = EventRow(
        type=name,
        version=None,
        classes=(),
        declared=("class",),
        may_be_unheard=False,
        broker="default",
        consumers=(),
        emitters=(),
    )
    return replace(row, **more)


def consumer(name: str, *types: str, events: tuple[str, ...] = ()) -> ConsumerRow:
    return ConsumerRow(
        name=name,
        handler="",
        types=types,
        brokers=("default",),
        events=events,
        enabled=True,
        options={},
    )


def broker(alias: str) -> BrokerRow:
    return BrokerRow(
        alias=alias, name="memory", backend="", run="auto", capacity=1, capabilities={}
    )


def overview(**more: Any) -> Overview:
    one = Overview(events=(), consumers=(), brokers=(), routes=(), dynamic=())
    return replace(one, brokers=[broker("default")], **more)


def test_an_event_leads_from_the_file_that_emits_it_to_who_listens() -> None:
    chart = as_mermaid(
        overview(
            events=[event("a.b", version=2, emitters=(emitter(),))],
            consumers=[
                consumer("exact", "a.b", events=("a.b",)),
                consumer("pattern", "a.*", events=("a.b",)),
            ],
        )
    )

    nodes, edges = read(chart)

    assert nodes == {
        "source0": "shop/views.py",
        "event0": "a.b v2",
        "consumer0": "exact",
        "consumer1": "pattern",
    }
    assert edges == {
        ("source0", "-->", "event0"),
        ("event0", "-->", "consumer0"),
        ("event0", "-.->", "consumer1"),
    }


def test_an_event_that_only_a_run_tells_is_dotted() -> None:
    nodes, edges = read(as_mermaid(overview(dynamic=[emitter("f'a.{x}'")])))

    assert nodes["dynamic0"] == "? f'a.{x}'"
    assert edges == {("source0", "-.->", "dynamic0")}


def test_a_consumer_of_no_known_event_says_what_it_waits_for() -> None:
    nodes, _ = read(as_mermaid(overview(consumers=[consumer("lone", "a.*", "b")])))

    assert nodes["consumer0"] == "lone (a.*, b)"


@pytest.mark.parametrize("name", [EVIL, "end", "graph", '"', "#quot;", "%%", "üñï 名"])
def test_no_text_can_end_its_node(name: str) -> None:
    chart = as_mermaid(
        overview(
            consumers=[consumer(name, "a")],
            dynamic=[emitter(name, file=name)],
            warnings=[WarningRow(kind="unreadable", subject="", text=name)],
        )
    )

    nodes, _ = read(chart)

    assert nodes == {
        "source0": name,
        "consumer0": f"{name} (a)",
        "dynamic0": f"? {name}",
    }


def test_events_of_several_brokers_stand_in_frames() -> None:
    chart = as_mermaid(
        replace(
            overview(events=[event("a"), event("b", broker='x"]')]),
            brokers=[broker("default"), broker('x"]')],
        )
    )

    read(chart)

    assert 'subgraph broker1["broker x#34;]"]\n        event1(["b"])' in chart
