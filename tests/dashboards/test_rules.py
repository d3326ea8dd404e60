"""Every alert fires when it should, keeps quiet when it should, and says what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dashboards.reading import PACKAGE, boards, marks, queries

RULES = PACKAGE / "prometheus"
RUNBOOKS = PACKAGE / "runbooks"
CASES = Path(__file__).parent / "rules"
ALERTS = re.findall(r"alert: (\w+)", (RULES / "alerts.yml").read_text())
SECTIONS = ["What happened", "What it means", "What to look at", "What to do"]

each_alert = pytest.mark.parametrize("alert", ALERTS)


def promtool(*words: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool; to run it: apt-get install prometheus")
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    promtool("check", "rules", "--lint=all", *map(str, sorted(RULES.glob("*.yml"))))


def test_promtool_can_read_every_query_of_a_board(tmp_path: Path) -> None:
    asked = [one.expr for board in boards() for one in queries(board)]
    asked += [expr for board in boards() for expr in marks(board).values()]
    lines = ["groups:", "- name: boards", "  rules:"]
    for number, expr in enumerate(asked):
        # A rule knows no resolution: any window will do.
        plain = re.sub(r"\[\$__\w+\]", "[1m]", expr)
        lines += [f"  - record: query:{number}", f"    expr: {json.dumps(plain)}"]
    file = tmp_path / "queries.yml"
    file.write_text("\n".join(lines))

    promtool("check", "rules", "--lint=none", str(file))


@pytest.mark.parametrize("case", sorted(CASES.glob("*.yml")), ids=lambda one: one.stem)
def test_alerts_fire_and_keep_quiet(case: Path) -> None:
    promtool("test", "rules", str(case))


@each_alert
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(
    alert: str,
) -> None:
    names = re.findall(r"- name: (\w+ \w+)", (CASES / f"{alert}.yml").read_text())

    assert any(name.startswith("fires ") for name in names)
    assert any(name == "is quiet" for name in names)


def test_no_case_is_left_of_an_alert_that_is_gone() -> None:
    assert {case.stem for case in CASES.glob("*.yml")} == {*ALERTS, "nothing"}


def test_there_are_at_least_thirteen_alerts() -> None:
    assert len(set(ALERTS)) == len(ALERTS) >= 13


@each_alert
def test_an_alert_has_a_runbook_that_says_what_to_do(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text()

    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(ALERTS)


@each_alert
def test_an_alert_says_how_grave_it_is_and_where_to_look(alert: str) -> None:
    text = (RULES / "alerts.yml").read_text()
    _, _, rest = text.partition(f"alert: {alert}\n")
    rule, _, _ = rest.partition("- alert:")
    notes = dict(re.findall(r"^ +(\w+): \"(.*)\"$", rule, re.MULTILINE))

    assert notes["severity"] in {"critical", "warning", "{{ $labels.severity }}"}
    assert notes["runbook_url"] == f"runbooks/{alert}.md"
    assert re.match(
        r"http://localhost:3000/d/gomq-[a-z]+\?var-job=", notes["dashboard_url"]
    )
    assert len(notes["summary"]) < 90
    assert len(notes["description"]) > 80
