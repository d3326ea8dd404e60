"""The overview as a table, as JSON and as Mermaid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from django_gomq.listing.overview import (
    BrokerRow,
    ConsumerRow,
    EmitCall,
    EventRow,
    Overview,
)
from django_gomq.management.tables import Cell, Marked, Screen


def as_json(overview: Overview) -> str:
    """Return the overview as one JSON document; its keys are the names of the rows."""
    return json.dumps(msgspec.to_builtins(overview), indent=2)


# Inside quotes everything else is text. Mermaid writes entities with "#" and ";".
_ENTITIES: Final = str.maketrans(
    {char: f"#{ord(char)};" for char in "#%&\"'<>`\\"} | {"\n": " ", "\r": " "}
)


def as_mermaid(overview: Overview) -> str:
    """Return the flowchart, with the warnings as comments in front."""
    files = {emitter.file for event in overview.events for emitter in event.emitters}
    files |= {emitter.file for emitter in overview.dynamic}
    ids = {name: f"source{number}" for number, name in enumerate(sorted(files))}
    lines = ["flowchart LR"]
    lines += [f"%% {_comment(warning.text)}" for warning in overview.warnings]
    lines += [_node(ids[name], "[", name, "]") for name in sorted(files)]
    lines += _events(overview)
    lines += _consumers(overview)
    lines += _emits(overview, ids)
    lines += _listens(overview)
    return "\n".join([lines[0], *(f"    {line}" for line in lines[1:])])


def _text(text: str) -> str:
    return f'"{text.translate(_ENTITIES)}"'


def _comment(text: str) -> str:
    # Braces begin a directive of Mermaid's, also in a comment.
    return " ".join(text.replace("{", "(").replace("}", ")").split())


def _node(name: str, opening: str, text: str, closing: str) -> str:
    return f"{name}{opening}{_text(text)}{closing}"


def _events(overview: Overview) -> Iterator[str]:
    """Yield the nodes of events, in a frame for each broker where there are several."""
    is_framed = len(overview.brokers) > 1
    for number, broker in enumerate(overview.brokers):
        own = [
            _node(f"event{index}", "([", _named(event), "])")
            for index, event in enumerate(overview.events)
            if event.broker == broker.alias
        ]
        if is_framed and own:
            own = [f"    {line}" for line in own]
            frame = _node(f"broker{number}", "[", f"broker {broker.alias}", "]")
            own = [f"subgraph {frame}", *own, "end"]
        yield from own


def _named(event: EventRow) -> str:
    return f"{event.type} v{event.version}" if event.version else event.type


def _consumers(overview: Overview) -> Iterator[str]:
    for index, consumer in enumerate(overview.consumers):
        suffix = "" if consumer.enabled else " (disabled)"
        if not consumer.events:
            suffix += f" ({', '.join(consumer.types)})"
        yield _node(f"consumer{index}", "[[", f"{consumer.name}{suffix}", "]]")


def _emits(overview: Overview, ids: Mapping[str, str]) -> Iterator[str]:
    for index, event in enumerate(overview.events):
        for file, emitters in _by_file(event.emitters):
            yield f"{ids[file]} -->|{_text(_lines(emitters))}| event{index}"
    for index, emitter in enumerate(overview.dynamic):
        yield _node(f"dynamic{index}", "([", f"? {emitter.text}", "])")
        yield f"{ids[emitter.file]} -.->|{_text(_lines([emitter]))}| dynamic{index}"


def _by_file(emitters: Iterable[EmitCall]) -> Iterator[tuple[str, Sequence[EmitCall]]]:
    found: dict[str, list[EmitCall]] = {}
    for emitter in emitters:
        found.setdefault(emitter.file, []).append(emitter)
    yield from found.items()


def _lines(emitters: Sequence[EmitCall]) -> str:
    calls = dict.fromkeys(emitter.call for emitter in emitters)
    lines = dict.fromkeys(str(emitter.line) for emitter in emitters)
    return f"{', '.join(calls)} :{', :'.join(lines)}"


def _listens(overview: Overview) -> Iterator[str]:
    """Yield an arrow for each event of a consumer; dotted where a pattern says so."""
    index_of = {event.type: index for index, event in enumerate(overview.events)}
    for number, consumer in enumerate(overview.consumers):
        for event in consumer.events if consumer.enabled else ():
            arrow = "-->" if event in consumer.types else "-.->"
            yield f"event{index_of[event]} {arrow} consumer{number}"


def as_table(overview: Overview, screen: Screen) -> str:
    """Return the tables and the warnings as text."""
    is_one = len(overview.brokers) == 1
    parts = [
        screen.table(
            "Events",
            ("event", *_unless(is_one, "broker"), "emitted at", "consumers"),
            [_event(event, is_one) for event in overview.events],
        ),
        screen.table(
            "Consumers",
            ("consumer", "listens to", *_unless(is_one, "broker"), "options"),
            [_consumer(consumer, is_one) for consumer in overview.consumers],
        ),
        screen.table(
            "Brokers",
            ("broker", "backend", "run", "capacity", "capabilities"),
            [_broker(broker) for broker in overview.brokers],
            right=["capacity"],
        ),
        screen.table(
            "Routes",
            ("events", "broker"),
            [(route.pattern, route.broker) for route in overview.routes],
        ),
        screen.table(
            "Emits of which only a run tells the event",
            ("at", "call", "event"),
            [
                (emitter.where, emitter.call, emitter.text)
                for emitter in overview.dynamic
            ],
        ),
    ]
    warnings = [
        screen.sentence("WARNING", f"warning: {warning.text}")
        for warning in overview.warnings
    ]
    parts.append("\n".join(warnings))
    return "\n\n".join(filter(None, parts))


def _unless(is_left_out: bool, *cells: Cell) -> Sequence[Any]:
    return () if is_left_out else cells


def _event(event: EventRow, is_one: bool) -> Sequence[Cell]:
    places = list(dict.fromkeys(emitter.where for emitter in event.emitters))
    broker = _unless(is_one, event.broker)
    return _named(event), *broker, places or "-", event.consumers or _UNHEARD


_UNHEARD: Final = Marked("-", "WARNING")


def _consumer(consumer: ConsumerRow, is_one: bool) -> Sequence[Cell]:
    options = [
        f"{name}={_written(option)}" for name, option in consumer.options.items()
    ]
    brokers = _unless(is_one, consumer.brokers)
    return consumer.name, consumer.types, *brokers, options or "-"


def _written(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return f"Retry({' '.join(f'{name}={_bare(item)}' for name, item in value.items())})"


def _bare(value: Any) -> str:
    return "|".join(value) if isinstance(value, list) else f"{value}"


def _broker(broker: BrokerRow) -> Sequence[Cell]:
    capacity = "-" if broker.capacity is None else str(broker.capacity)
    promised = [
        name if value is True else f"{name}={value:g}"
        for name, value in broker.capabilities.items()
        if value is not False and value is not None
    ]
    return broker.alias, broker.name, broker.run, capacity, promised or "-"
