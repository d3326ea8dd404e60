"""The backend that docs/backends.md shows passes the conformance suite."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from django_gomq.testing.conformance import ConformanceSuite

PAGE: Final = Path(__file__).parents[2] / "docs" / "backends.md"
_BLOCK: Final = re.compile(r"```python\n# (\w+)\.py\n(.*?)```", re.DOTALL)


def load_page() -> dict[str, Any]:
    """Run the modules of the page; return the names of the last of them."""
    names: dict[str, Any] = {}
    for name, code in _BLOCK.findall(PAGE.read_text()):
        module = sys.modules[name] = ModuleType(name)
        exec(compile(code, f"{PAGE}: {name}.py", "exec"), module.__dict__)
        names = vars(module)
    return names


TestSQLite: Final[type[ConformanceSuite]] = load_page()["TestSQLite"]


def test_the_example_can_be_read_in_one_sitting() -> None:
    code = dict(_BLOCK.findall(PAGE.read_text()))["sqlite_backend"]

    assert code.count("\n") < 150


def test_the_checklist_has_ten_items() -> None:
    items = re.findall(r"^(\d+)\. \*\*", PAGE.read_text(), re.MULTILINE)

    assert items == [str(number) for number in range(1, 11)]
