from __future__ import annotations

import ast
from pathlib import Path

import grimp

from .interpreter import PACKAGE

LONGEST = 500
LARGEST_FOLDER = 20
LEAST_OF_ITS_OWN = 70
# One file a theme, however small: so authors of backends find what a test asks.
THEMES = "django_gomq.testing.conformance."
# Names that say nothing, and so collect everything.
BANNED = {"base", "common", "core", "helpers", "misc", "shared", "types", "utils"}

FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({file.parent for file in FILES})


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def test_a_file_can_be_read_in_one_sitting() -> None:
    long = [name_of(file) for file in FILES if file.read_text().count("\n") >= LONGEST]

    assert long == []


def test_a_folder_can_be_looked_over() -> None:
    large = [
        name_of(folder)
        for folder in FOLDERS
        if len({*folder.glob("*.py")} - {folder / "__init__.py"}) > LARGEST_FOLDER
    ]

    assert large == []


def test_a_file_is_named_for_what_it_is() -> None:
    banned = [
        name_of(file)
        for file in FILES
        if BANNED.intersection(file.relative_to(PACKAGE).with_suffix("").parts)
    ]

    assert banned == []


def test_a_module_opens_with_what_it_is() -> None:
    modules = {name_of(file): ast.parse(file.read_text()) for file in FILES}
    silent = [
        name
        for name, module in modules.items()
        if module.body and not ast.get_docstring(module)
    ]

    assert silent == []


def test_a_module_that_one_other_imports_is_a_concept_of_its_own() -> None:
    small = [
        name
        for name, importers in importers_by_module().items()
        if len(importers) == 1
        and lines_of(name) < LEAST_OF_ITS_OWN
        and not name.startswith(THEMES)
    ]

    assert small == []


def importers_by_module() -> dict[str, set[str]]:
    """By dotted name; folders are left out, as they only say what is in them."""
    graph = grimp.build_graph("django_gomq")
    return {
        name: graph.find_modules_that_directly_import(name)
        for name in sorted(graph.modules)
        if not graph.find_children(name) and "__init__" not in name
    }


def lines_of(name: str) -> int:
    file = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
    return file.read_text().count("\n")
