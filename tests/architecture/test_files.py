from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .interpreter import PACKAGE

LONGEST = 500
LARGEST_FOLDER = 20
# Names that say nothing, and so collect everything.
BANNED = {"base", "common", "core", "helpers", "misc", "shared", "types", "utils"}

FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({file.parent for file in FILES})


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_can_be_read_in_one_sitting(file: Path) -> None:
    lines = file.read_text().count("\n")

    assert lines < LONGEST


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_folder_can_be_looked_over(folder: Path) -> None:
    files = [file for file in folder.glob("*.py") if file.name != "__init__.py"]

    assert len(files) <= LARGEST_FOLDER


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_is_named_for_what_it_is(file: Path) -> None:
    assert BANNED.isdisjoint(file.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_module_opens_with_what_it_is(file: Path) -> None:
    module = ast.parse(file.read_text())

    assert not module.body or ast.get_docstring(module)
