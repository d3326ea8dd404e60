"""Whether a page does with a Content-Security-Policy that allows nothing inline."""

from __future__ import annotations

from html.parser import HTMLParser


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.broken: list[str] = []

    def handle_starttag(
        self, tag: str, attributes: list[tuple[str, str | None]]
    ) -> None:
        names = {name for name, _ in attributes}
        self.broken += [
            f"{tag} {name}"
            for name in names
            if name == "style" or name.startswith(("on", "hx-on"))
        ]
        if tag == "style" or (tag == "script" and "src" not in names):
            self.broken.append(tag)
        self.broken += [
            f"{tag} {name}={value}"
            for name, value in attributes
            if name in {"src", "href"} and (value or "").startswith(("http", "//", "j"))
        ]


def broken_rules(page: str) -> list[str]:
    """Return what such a policy would refuse: inline code and styles, other sites."""
    reader = _Reader()
    reader.feed(page)
    return reader.broken
