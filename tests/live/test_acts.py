"""Consumers are paused, resumed and resized on the page, by whom may."""

from __future__ import annotations

from pathlib import Path

from tests.live.programs import found

ACTS = """
ACT = LIVE + "act/"
KEY = "default/cache.warm"
operator = user("operator", *VIEW, "pause_consumer")
"""


def test_who_may_pauses_and_resumes_and_the_page_says_by_whom(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        ACTS
        + """
nobody.get("/visit?times=1")
before = text(operator.get(LIVE))
paused = operator.post(ACT, {"pause": KEY}, headers=POLL)
wait(lambda: "by operator" in text(operator.get(LIVE)))
page = text(operator.get(LIVE))
operator.post(ACT, {"resume": KEY})
wait(lambda: "by operator" not in text(operator.get(LIVE)))
tell(buttons=[f'name="{word}" value="{KEY}"' in one for word, one in (
        ("pause", before), ("resume", page))],
    asked="pause asked" in text(paused), shown="cache.warm</a> is paused" in page,
    offered=[f'value="{KEY}"' in text(vera.get(LIVE))])
""",
    )

    assert told == {
        "buttons": [True] * 2,
        "asked": True,
        "shown": True,
        "offered": [False],
    }


def test_who_may_resizes_each_process_and_is_told_of_on_the_page(
    tmp_path: Path,
) -> None:
    told = found(
        tmp_path,
        ACTS
        + """
nobody.get("/visit?times=1")
own = LIVE + "consumers/default/cache.warm/"
done = anna.post(ACT, {"resize": KEY, "capacity": "77", "page": "consumer"})
wait(lambda: "of 77" in text(anna.get(own)))
page = text(anna.get(own))
tell(back=done.headers["Location"] == own,
    logged=["<b>anna</b>" in page, "Resized to 77 in every process." in page])
""",
    )

    assert told == {"back": True, "logged": [True, True]}


def test_who_may_not_does_nothing_and_neither_does_a_strange_form(
    tmp_path: Path,
) -> None:
    told = found(
        tmp_path,
        ACTS
        + """
forged = user("forged", *VIEW, "pause_consumer", enforce_csrf_checks=True)
refused = [one.post(ACT, {"pause": KEY}).status_code for one in (vera, nils, forged)]
refused.append(operator.post(ACT, {"resize": KEY, "capacity": "5"}).status_code)
strange = [anna.post(ACT, form).status_code for form in ({}, {"pause": "cache.warm"},
    {"resize": KEY}, {"resize": KEY, "capacity": "0"},
    {"resize": KEY, "capacity": "-1"}, {"resize": KEY, "capacity": "9" * 30})]
tell(refused=refused, strange=strange, got=anna.get(ACT).status_code)
""",
    )

    assert told == {"refused": [403] * 4, "strange": [400] * 6, "got": 405}


def test_a_server_that_is_away_is_told_and_nothing_is_changed(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        ACTS
        + """
from django.conf import settings
from django_gomq.site import renew
settings.GOMQ = {**settings.GOMQ, "BROKERS": {"default": {
    "BACKEND": "django_gomq.backends.redis.RedisBackend", "RUN": "worker",
    "OPTIONS": {"url": "redis://127.0.0.1:1/0"}}}}
renew()
done = operator.post(ACT, {"pause": KEY}, follow=True)
tell(code=done.status_code, told="cache.warm may be as it was: " in text(done))
""",
    )

    assert told == {"code": 200, "told": True}
