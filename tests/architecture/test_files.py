from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .interpreter import PACKAGE

LONGEST = 250
# The suite for authors of backends is one list of promises, read from top to bottom.
MAY_BE_LONGER = ("testing/conformance",)
# Names that say nothing, and so collect everything.
BANNED = {"base", "common", "core", "helpers", "misc", "shared", "types", "utils"}

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_can_be_read_in_one_sitting(file: Path) -> None:
    if name_of(file).startswith(MAY_BE_LONGER):
        return

    lines = file.read_text().count("\n")

    assert lines < LONGEST


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_is_named_for_what_it_is(file: Path) -> None:
    assert BANNED.isdisjoint(file.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_module_opens_with_what_it_is(file: Path) -> None:
    module = ast.parse(file.read_text())

    assert not module.body or ast.get_docstring(module)
