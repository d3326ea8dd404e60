"""Dead letters on their page: looked at, replayed and discarded by whom may."""

from __future__ import annotations

from pathlib import Path

from tests.live.programs import found

LETTERS = """
LETTERS = LIVE + "dead-letters/"
ACT = LETTERS + "act/"
operator = user("operator", *VIEW, "replay_dead_letters", "discard_dead_letters")

def left():
    return sorted(StoredDeadLetter.objects.values_list("error", flat=True))

def key_of(error):
    from django_gomq.dead_letters import chosen
    return chosen.key_of("billing.ledger", error)

def bury_some(*errors):
    return [bury(error, event_id=None, consumer="billing.ledger",
        type="billing.invoice.paid") for error in errors]
"""


def test_they_are_grouped_and_the_data_need_a_permission(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        LETTERS
        + """
letters = bury_some("ValueError: no 17", "ValueError: no 18", "KeyError: gone")
reader = user("reader", *VIEW, "view_payload")
page = text(vera.get(LETTERS))
one = [text(each.get(f"{LETTERS}{letters[0].pk}/")) for each in (vera, reader)]
tell(groups=page.count('class="g-group"'), masked="no #" in page,
    buttons=["Replay" in page, "Discard" in page], traceback="x.py" in page,
    data=["Ada B." in each for each in one], trace=letters[0].trace_id in page,
    same=f"{letters[1].pk}</a>" in one[0],
    gone=vera.get(f"{LETTERS}999/").status_code)
""",
    )

    assert told == {
        "groups": 2,
        "masked": True,
        "buttons": [False, False],
        "traceback": True,
        "data": [False, True],
        "trace": True,
        "same": True,
        "gone": 404,
    }


def test_a_chosen_fault_is_discarded_after_a_question_and_logged(
    tmp_path: Path,
) -> None:
    told = found(
        tmp_path,
        LETTERS
        + """
from django.contrib.admin.models import LogEntry
letters = bury_some("ValueError: no 1", "ValueError: no 2", "KeyError: gone")
form = {"do": "discard", "group": [key_of("ValueError: no #")],
    "last": letters[-1].pk}
asked = text(operator.post(ACT, form))
before = left()
late = bury_some("ValueError: no 3")
done = operator.post(ACT, {**form, "agreed": "yes"}, follow=True)
tell(question="2 dead letters will be gone" in asked, broken=broken_rules(asked),
    before=len(before), left=left(), told="2 discarded." in text(done),
    log=[[one.user.username, one.is_deletion()] for one in LogEntry.objects.all()])
""",
    )

    assert told == {
        "question": True,
        "broken": [],
        "before": 3,
        "left": ["KeyError: gone", "ValueError: no 3"],
        "told": True,
        "log": [["operator", True]] * 2,
    }


def test_all_and_single_ones_are_discarded(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        LETTERS
        + """
first, second, third = bury_some("KeyError: a", "KeyError: b", "KeyError: c")
other = bury("OSError: d", event_id=None, consumer="cache.warm")
yes = {"agreed": "yes", "last": other.pk}
operator.post(ACT, {"do": "discard", "letter": first.pk, **yes})
after_one = left()
operator.post(ACT, {"do": "discard all", "consumer": "billing.ledger", **yes})
after_those = left()
operator.post(ACT, {"do": "discard all", **yes})
nothing = operator.post(ACT, {"do": "replay", "last": "0"}, follow=True)
tell(one=after_one, those=after_those, all=left(),
    nothing="Nothing is chosen." in text(nothing))
""",
    )

    assert told == {
        "one": ["KeyError: b", "KeyError: c", "OSError: d"],
        "those": ["OSError: d"],
        "all": [],
        "nothing": True,
    }


def test_forms_name_ids_as_they_are_where_numbers_have_separators(
    tmp_path: Path,
) -> None:
    told = found(
        tmp_path,
        LETTERS
        + """
import re
from django.test import override_settings
bury("OSError: d", id=1234567, event_id=None)
with override_settings(USE_THOUSAND_SEPARATOR=True):
    pages = [text(operator.get(LIVE + f"dead-letters/{at}")) for at in ("", "1234567/")]
    pages.append(text(anna.get(LIVE + "consumers/default/cache.warm/")))
    values = [re.findall(r'name="(?:last|letter|capacity)"[^>]*value="([^"]*)"', page)
        for page in pages]
    asked = text(operator.post(ACT, {"do": "discard all", "last": values[0][0]}))
    again = dict(re.findall(r'name="([a-z]+)" value="([^"]*)"', asked))
    operator.post(ACT, again)
tell(values=values, left=left())
""",
    )

    assert told["values"][:2] == [["1234567"], ["1234567", "1234567"]]
    assert told["values"][2][-1].isdecimal()
    assert told["left"] == []


def test_a_site_without_messages_acts_and_says_nothing(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        LETTERS
        + """
from django.conf import settings
from django.test import override_settings
left_out = "django.contrib.messages.middleware.MessageMiddleware"
(letter,) = bury_some("KeyError: a")
with override_settings(MIDDLEWARE=[m for m in settings.MIDDLEWARE if m != left_out]):
    codes = [operator.post(ACT, {"last": letter.pk, **form}).status_code for form in (
        {"do": "replay"},
        {"do": "discard", "letter": letter.pk, "agreed": "yes"},
        {"do": "replay", "letter": letter.pk},
    )]
tell(codes=codes, left=left())
""",
    )

    assert told == {"codes": [302, 302, 302], "left": []}


def test_a_page_says_that_there_are_more_groups_than_it_shows(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        LETTERS
        + """
bury_some(*(f"KeyError: {'a' * number}" for number in range(1, 60)))
part = text(operator.get(LIVE + "dead-letters/"))
some = StoredDeadLetter.objects.order_by("pk").values_list("pk", flat=True)[:20]
StoredDeadLetter.objects.filter(pk__in=list(some)).delete()
whole = text(operator.get(LIVE + "dead-letters/"))
tell(part=["<b>50</b> messages" in part, "the 50 most frequent groups" in part],
    whole=["<b>39</b> messages" in whole, "in 39 groups" in whole])
""",
    )

    assert told == {"part": [True, True], "whole": [True, True]}


def test_a_replayed_one_is_handled(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        LETTERS
        + """
from tests.live.clinic.settings import FOLDER
anna.get("/mend")
letters = [bury("GatewayTimeout: 3 s", event_id=None, consumer="billing.ledger",
    type="billing.invoice.paid", body=b'{"invoice": 47110}')]
done = operator.post(ACT, {"do": "replay", "letter": letters[0].pk,
    "last": letters[0].pk}, follow=True)
charged = FOLDER / "charged"
nobody.get("/visit?times=9")  # starts the brokers of this process
wait(lambda: charged.exists() and "47110" in charged.read_text())
tell(told=["replayed" in text(done)], left=left())
""",
    )

    assert told == {"told": [True], "left": []}


def test_who_may_not_does_nothing_and_neither_does_a_strange_form(
    tmp_path: Path,
) -> None:
    told = found(
        tmp_path,
        LETTERS
        + """
(letter,) = bury_some("KeyError: a")
forged = user("forged", *VIEW, "discard_dead_letters", enforce_csrf_checks=True)
form = {"do": "discard", "letter": letter.pk, "last": letter.pk, "agreed": "yes"}
codes = [one.post(ACT, form).status_code for one in (vera, forged)]
codes += [operator.post(ACT, {**form, **more}).status_code
    for more in ({"letter": "x"}, {"last": ""}, {"letter": ["1"] * 1001},
        {"letter": "9" * 30}, {"last": "9" * 5000}, {"letter": "\u0663"},
        {"do": "nonsense"}, {"do": ""}, {"do": "discard some"})]
codes.append(operator.post(ACT, {**form, "consumer": chr(0)}).status_code)
tell(codes=codes, left=left())
""",
    )

    assert told == {"codes": [403] * 2 + [400] * 9 + [302], "left": ["KeyError: a"]}


def test_who_may_only_replay_discards_by_no_form(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        LETTERS
        + """
(letter,) = bury_some("KeyError: a")
replays = user("replays", *VIEW, "replay_dead_letters")
form = {"letter": letter.pk, "last": letter.pk, "agreed": "yes"}
tell(codes=[replays.post(ACT, {**form, "do": word}).status_code
    for word in ("discard", "discard all", "nonsense", "x all")], left=left())
""",
    )

    assert told == {"codes": [403, 403, 400, 400], "left": ["KeyError: a"]}
