"""The table that a conformance run ends with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from django_gomq.bus.backend import Backend, ConsumerState
from django_gomq.testing.conformance import Harness
from django_gomq.testing.report import PROPERTY, conformance_lines


def report(
    outcome: str,
    *verdicts: tuple[str, str],
    theme: str = "delay",
    suite: str = "Mine",
    when: str = "call",
    reason: str = "",
) -> Any:
    return SimpleNamespace(
        when=when,
        passed=outcome == "passed",
        failed=outcome == "failed",
        skipped=outcome == "skipped",
        longrepr=("file.py", 1, reason) if reason else None,
        user_properties=[("other", 1), (PROPERTY, ((suite, theme), list(verdicts)))],
    )


def test_a_run_without_a_suite_has_no_table() -> None:
    ordinary = SimpleNamespace(when="call", passed=True, user_properties=[])

    assert conformance_lines([ordinary]) == []


def test_each_suite_has_a_column_and_each_theme_a_row() -> None:
    lines = conformance_lines(
        [
            report("passed"),
            report("passed"),
            report("passed", ("refused", "delay")),
            report("failed", theme="order"),
            report("passed", ("not promised", "durable"), suite="Yours"),
        ]
    )

    assert lines == [
        "theme  Mine                 Yours",
        "delay  2 passed, 1 refused  1 not promised",
        "order  1 FAILED",
        "",
        "Mine: refused: delay",
        "Yours: not promised: durable",
    ]


def test_what_was_not_tested_says_why() -> None:
    reason = "Skipped: not tested: the harness of this backend cannot fly"

    lines = conformance_lines([report("skipped", reason=reason)])

    assert lines[1] == "delay  1 not tested"
    assert lines[-1] == "Mine: not tested: the harness of this backend cannot fly"


def test_the_ends_of_tests_are_not_counted_unless_they_fail() -> None:
    lines = conformance_lines(
        [report("passed"), report("passed", when="teardown"), report("skipped")]
    )

    assert lines[1] == "delay  1 passed, 1 not tested"


class Barest(Harness):
    def make_backend(self) -> Backend:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("stop_server", ()),
        ("lose_answers", ()),
        ("atomic", ()),
        ("put_garbage", ("a.b",)),
        ("desire", ("c", ConsumerState())),
    ],
)
def test_what_a_harness_leaves_out_is_reported_as_not_tested(
    name: str, given: tuple[Any, ...]
) -> None:
    with pytest.raises(pytest.skip.Exception, match="^not tested: the harness of"):
        getattr(Barest(), name)(*given)


def test_a_harness_may_leave_out_all_else() -> None:
    harness, backend = Barest(), object()

    harness.start_server()
    harness.cut(backend)  # type: ignore[arg-type]
    harness.mend(backend)  # type: ignore[arg-type]
    harness.pass_time(0.0)
    harness.close()
