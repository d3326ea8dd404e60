"""What ships is what the generator makes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dashboards import marks, thresholds
from dashboards.reading import PACKAGE
from django_gomq.bus.counts import WAIT_BUCKETS

ROOT = Path(__file__).parents[2]


def texts(folder: Path) -> dict[str, str]:
    """What is generated in a folder; runbooks are written by people."""
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".md"
    }


SHIPPED = texts(PACKAGE)


def test_what_ships_is_as_the_generator_makes_it(tmp_path: Path) -> None:
    if find_spec("grafana_foundation_sdk") is None:
        pytest.skip(
            "there is no Grafana SDK; to run it: pip install -r requirements/dev.txt"
        )
    command = [sys.executable, "-m", "dashboards", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)

    made = texts(tmp_path)

    assert set(made) == set(SHIPPED)
    for path, text in made.items():
        assert text == SHIPPED[path], f"{path} differs; run: make dashboards"


def test_every_threshold_is_used() -> None:
    comments = "\n".join(text for path, text in SHIPPED.items() if "yml" in path)
    places = json.loads(SHIPPED["options.json"])["places"]
    on_boards = {name for board in places.values() for name in board.values()}

    unused = [
        name
        for name in thresholds.ALL
        if f"  # {name}\n" not in comments and name not in on_boards
    ]
    assert unused == []


def test_a_number_that_stands_twice_on_its_line_is_refused() -> None:
    with pytest.raises(marks.MarkError, match="stands twice"):
        list(marks.fill(f"sum(rate(x[300s])) > {thresholds.LOSS_WINDOW}"))


def test_two_thresholds_on_one_line_are_refused() -> None:
    with pytest.raises(marks.MarkError, match="two thresholds"):
        list(marks.fill(f"x[{thresholds.LOSS_WINDOW}s] > {thresholds.FILL}"))


def test_a_threshold_of_the_wait_is_in_reach_of_its_buckets() -> None:
    assert thresholds.WAIT_P95.default < max(WAIT_BUCKETS)
