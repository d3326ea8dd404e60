"""`manage.py gomq dashboards` writes what ships, with the user's own values in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from dashboards import reading
from django_gomq.management import dashboards as command
from django_gomq.management.dashboards import DEFAULTS, Values, write_dashboards

ALERTS = Path("prometheus") / "alerts.yml"


def parse(*words: str) -> dict[str, Any]:
    parser = ArgumentParser()
    command.add_arguments(parser)
    return vars(parser.parse_args(["--out", "unused", *words]))


def run(folder: Path, *words: str) -> list[str]:
    lines: list[str] = []
    code = command.run({**parse(*words), "out": folder}, lines.append)
    assert code == 0
    return lines


def board(folder: Path, uid: str = "gomq-overview") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "grafana" / f"{uid}.json").read_text())
    return found


def test_without_options_the_files_are_those_that_ship(tmp_path: Path) -> None:
    run(tmp_path / "new" / "folder")

    shipped = [one for one in reading.PACKAGE.rglob("*") if one.is_file()]
    for file in shipped:
        if file.name != "options.json":
            path = file.relative_to(reading.PACKAGE)
            assert (
                tmp_path / "new" / "folder" / path
            ).read_bytes() == file.read_bytes()
    assert not (tmp_path / "new" / "folder" / "options.json").exists()


def test_it_says_what_it_wrote(tmp_path: Path) -> None:
    lines = run(tmp_path)

    assert str(tmp_path / ALERTS) in lines
    assert sorted(lines) == sorted(
        str(one) for one in tmp_path.rglob("*") if one.is_file()
    )


def test_a_job_is_put_into_every_rule_and_every_choice(tmp_path: Path) -> None:
    run(tmp_path, "--job", r"shop\d+")

    for name in ("alerts.yml", "recording.yml"):
        rules = (tmp_path / "prometheus" / name).read_text()
        assert r'job=~"shop\\d+"' in rules
        assert DEFAULTS.job not in rules
    job = reading.variables(board(tmp_path))["job"]
    assert job["definition"] == r'label_values(gomq_build_info{job=~"shop\\d+"}, job)'
    assert job["query"]["query"] == job["definition"]
    assert job["allValue"] == r"shop\d+"


def test_a_data_source_is_what_every_board_begins_with(tmp_path: Path) -> None:
    run(tmp_path, "--datasource", "Mimir")

    for one in reading.boards(tmp_path):
        chosen = reading.variables(one)["datasource"]["current"]
        assert chosen == {"text": "Mimir", "value": "Mimir"}


def test_addresses_of_boards_and_runbooks_are_put_into_alerts(tmp_path: Path) -> None:
    run(
        tmp_path,
        "--dashboard-url",
        "https://g.example/x/",
        "--runbook-url",
        "https://r",
    )

    alerts = (tmp_path / ALERTS).read_text()
    assert 'dashboard_url: "https://g.example/x/d/gomq-consumer?var-job=' in alerts
    assert 'runbook_url: "https://r/GomqMessagesDropped.md"' in alerts
    assert DEFAULTS.dashboard_url not in alerts


@pytest.mark.parametrize("name", DEFAULTS.thresholds)
def test_each_threshold_changes_rules_or_boards_where_it_is_named(
    name: str, tmp_path: Path
) -> None:
    number = "0.25" if DEFAULTS.thresholds[name].unit == "ratio" else "77"

    write_dashboards(tmp_path, Values(thresholds={name: number}))

    before = (reading.PACKAGE / ALERTS).read_text().splitlines()
    after = (tmp_path / ALERTS).read_text().splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert all(line.endswith(f"  # {name}") for line in changed)
    assert all(re.search(rf"(?<!\d){number}(?!\d)", line) for line in changed)
    assert len(changed) == sum(line.endswith(f"  # {name}") for line in before) > 0


def test_a_threshold_is_a_line_on_boards_too(tmp_path: Path) -> None:
    run(tmp_path, "--threshold", "fill=0.5", "--threshold", "oldest_age=7")

    limits = {
        panel["title"]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1][
            "value"
        ]
        for panel in reading.panels(board(tmp_path))
        if panel["title"] in {"Fullest", "Oldest", "How full"}
    }
    assert limits == {"Fullest": 0.5, "Oldest": 7, "How full": 0.5}


def test_the_rules_of_any_options_are_valid(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("there is no promtool; to run it: apt-get install prometheus")
    everything = [f"--threshold={name}=1" for name in DEFAULTS.thresholds]
    run(tmp_path, "--job", 'a"\\d|b', "--runbook-url", 'https://r/"x"', *everything)

    rules = sorted(map(str, (tmp_path / "prometheus").glob("*.yml")))
    done = subprocess.run(
        [program, "check", "rules", *rules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--threshold", "fil=0.5"], "there is no threshold 'fil'; there are"),
        (["--threshold", "fill"], "fill is in ratio, not ''"),
        (["--threshold", "fill=80%"], "fill is in ratio, not '80%'"),
        (["--threshold", "fill=80"], "fill is a ratio, from 0 to 1, not '80'"),
        (
            ["--threshold", "loss_window=5m"],
            "loss_window is in whole seconds, not '5m'",
        ),
        (["--threshold", "oldest_age=-1"], "oldest_age is in seconds, not '-1'"),
        (["--job", "shop("], "'shop(' is no regular expression"),
        (["--job", ""], "say which jobs"),
    ],
)
def test_a_wrong_value_is_refused_with_what_it_should_be(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(*words)

    assert told in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CommandError, match="Cannot write"):
        run(tmp_path / "file")


def test_it_is_a_subcommand_of_gomq(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("gomq", "dashboards", "--out", str(tmp_path))

    assert str(tmp_path / ALERTS) in capsys.readouterr().out.splitlines()


def test_help_lists_every_threshold_with_its_default() -> None:
    parser = ArgumentParser()
    command.add_arguments(parser)
    told = " ".join(parser.format_help().split())

    for name, one in DEFAULTS.thresholds.items():
        assert f" {name}={one.default} {one.help} ({one.unit})" in told
