"""The live page in Django's admin, in the place of a list of consumers."""

from __future__ import annotations

from pathlib import Path

from tests.live.programs import found

ADMIN = """
ADMIN = "/admin/gomq/consumer/"
PAGES = ["", "map/", "dead-letters/", "consumers/default/cache.warm/"]
"""


def test_it_is_linked_and_closed_as_the_admin_is(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        ADMIN
        + """
codes = {name: [client.get(ADMIN + page).status_code for page in PAGES]
    for name, client in (("anna", anna), ("vera", vera), ("nils", nils),
        ("guest", guest), ("nobody", nobody))}
expired = nobody.get(ADMIN, headers=POLL)
tell(codes=codes, index=[ADMIN in text(one.get("/admin/")) for one in (vera, nils)],
    expired=[expired.status_code, expired.headers.get("HX-Refresh")],
    others=[anna.get(ADMIN + page).status_code for page in ("add/", "1/change/")])
""",
    )

    assert told == {
        "codes": {
            "anna": [200] * 4,
            "vera": [200] * 4,
            "nils": [403] * 4,
            "guest": [302] * 4,
            "nobody": [302] * 4,
        },
        "index": [True, False],
        "expired": [204, "true"],
        "others": [403, 302],
    }


def test_its_links_stay_in_the_admin_and_nothing_inline_is_ours(tmp_path: Path) -> None:
    told = found(
        tmp_path,
        ADMIN
        + """
bury(event_id=None, consumer="cache.warm")
pages = [text(anna.get(ADMIN + page)) for page in PAGES]
tell(own=[page.count("/gomq/live/") for page in pages],
    links=[f'href="{ADMIN}map/"' in page for page in pages],
    broken=[broken_rules(page) for page in pages],
    theme=["admin/css/base.css" in page for page in pages])
""",
    )

    assert told == {
        "own": [0] * 4,
        "links": [True] * 4,
        "broken": [[]] * 4,
        "theme": [True] * 4,
    }
