from __future__ import annotations

from typing import Any

from django_gomq import Message, consumer
from tests.django_site.failing.settings import FOLDER


@consumer("page.viewed", name="seen")
def see(message: Message[Any]) -> None:
    if not (FOLDER / "mended").exists():
        raise ValueError(f"not mended for {message.data['id']}")
    with (FOLDER / "seen").open("a") as seen:
        seen.write(f"{message.data['id']}\n")
