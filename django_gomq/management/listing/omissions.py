"""What looks like a mistake in an overview; a pure rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .overview import Emitter, Overview, WarningRow


def find_warnings(
    overview: Overview,
    misnamed: Mapping[str, Sequence[Emitter]],
    unreadable: Mapping[str, str],
) -> Iterator[WarningRow]:
    """Yield a warning for whoever has no other side, and for what could not be read."""
    yield from _unheard(overview)
    yield from _unfed(overview)
    wrong = [(one, event) for event in misnamed for one in misnamed[event]]
    for one, event in sorted(wrong):
        text = f"{one.where} emits {event!r:.100}, which is no event type."
        yield WarningRow(kind="not_a_type", subject=one.where, text=text)
    for file, reason in sorted(unreadable.items()):
        text = f"{file} cannot be read, so what it emits is not here: {reason}"
        yield WarningRow(kind="unreadable", subject=file, text=text)


def _unheard(overview: Overview) -> Iterator[WarningRow]:
    for event in overview.events:
        if not event.consumers and not event.may_be_unheard:
            text = f"Nobody listens to {event.type}."
            yield WarningRow(kind="no_consumer", subject=event.type, text=text)


def _unfed(overview: Overview) -> Iterator[WarningRow]:
    emitted = {one.type for one in overview.events if one.emitters}
    count = len(overview.dynamic)
    perhaps = f" ({count} dynamic emit{'s' * (count > 1)} may)" if count else ""
    for consumer in overview.consumers:
        if consumer.enabled and emitted.isdisjoint(consumer.events):
            text = f"Nobody in sight emits to {consumer.name}{perhaps}."
            yield WarningRow(kind="no_emitter", subject=consumer.name, text=text)
