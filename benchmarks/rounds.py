"""Rounds: every case of a group in turn, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.plan import Case, Group
from benchmarks.process import Answer, Child

Results = Mapping[str, Sequence[Answer]]
"""By case, what it answered in each round."""
Tell = Callable[[str], None]


def play(group: Group, log: Path, tell: Tell) -> Results:
    """Run all cases of the group, interleaved: A B C, A B C, and so on."""
    lasting = [case for case in group.cases if not case.is_fresh]
    results: dict[str, list[Answer]] = {case.name: [] for case in group.cases}
    with ExitStack() as stack:
        tell(f"{group.name}: starting {len(lasting)} processes")
        children = {
            case.name: stack.enter_context(closing(Child(case, log)))
            for case in lasting
        }
        for child in children.values():
            child.wait_until_ready()
        for number in range(-group.warm_ups, group.runs):
            began = time.monotonic()
            answers = _play_round(group.cases, children, log)
            told = f"round {number + 1} of {group.runs}" if number >= 0 else "warm-up"
            tell(f"{group.name}: {told}, {time.monotonic() - began:.1f} s")
            if number >= 0:
                for name, answer in answers.items():
                    results[name].append(answer)
    return results


def _play_round(
    cases: Sequence[Case], children: Mapping[str, Child], log: Path
) -> Mapping[str, Answer]:
    answers = {}
    for case in cases:
        child = children.get(case.name)
        answers[case.name] = _run_fresh(case, log) if child is None else child.run()
    return answers


def _run_fresh(case: Case, log: Path) -> Answer:
    with closing(Child(case, log)) as child:
        child.wait_until_ready()
        return child.run()
