"""Answers and rows held against the metrics; where they were read it does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from acceptance.check import Check
from acceptance.law import consumers
from acceptance.scrape import Scrape, union

_STATES = ("accepted", "refused", "sent", "rolled_back")


def check_answers(answers: Counter[tuple[str, str]], scrape: Scrape) -> list[Check]:
    """Compare what the HTTP answers told about each event with what was published."""
    published = scrape.by("event", "gomq_messages_published_total")
    events = union((event for event, _ in answers), published)
    return [check for event in events for check in _answers(event, answers, scrape)]


def check_rows(rows: Mapping[str, int], scrape: Scrape) -> list[Check]:
    """Compare the rows that each consumer's handler wrote with its successes."""
    return [
        Check(
            subject=consumer,
            left="rows",
            left_value=rows.get(consumer, 0),
            right="handled",
            right_value=scrape.total(
                "gomq_messages_processed_total", consumer=consumer, outcome="success"
            ),
        )
        for consumer in union(rows, consumers(scrape))
    ]


def _answers(
    event: str, answers: Counter[tuple[str, str]], scrape: Scrape
) -> Iterator[Check]:
    published = scrape.total("gomq_messages_published_total", event=event)
    refused = scrape.total("gomq_messages_refused_total", event=event)
    rolled_back = scrape.total("gomq_messages_rolled_back_total", event=event)
    told = {state: answers[event, state] for state in _STATES}
    # An event of a model signal has no receipt in the view, so its answers say "sent":
    # what was refused of those, only the metrics can tell.
    hidden = max(refused - told["refused"], 0) if told["sent"] else 0
    accepted = told["accepted"] + told["sent"] - hidden
    yield Check(event, "answers", accepted, "published", published)
    if refused or told["refused"]:
        refusals = told["refused"] + hidden
        yield Check(event, "answers refused", refusals, "refused", refused)
    if rolled_back or told["rolled_back"]:
        yield Check(
            event,
            "answers after a rollback",
            told["rolled_back"],
            "rolled back",
            rolled_back,
        )
