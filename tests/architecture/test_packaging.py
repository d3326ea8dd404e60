from __future__ import annotations

import importlib.metadata
import tomllib

from packaging.requirements import Requirement

from .interpreter import PACKAGE, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_every_dependency_has_a_lower_and_an_upper_bound() -> None:
    for_users = [extra for name, extra in EXTRAS.items() if name != "bench"]
    listed = [*PROJECT["dependencies"], *(one for extra in for_users for one in extra)]

    for each in map(Requirement, listed):
        assert {bound.operator for bound in each.specifier} == {">=", "<"}, each


def test_what_figures_are_compared_with_is_pinned() -> None:
    for each in map(Requirement, EXTRAS["bench"]):
        assert [bound.operator for bound in each.specifier] == ["=="], each


def test_the_installed_version_is_the_one_in_pyproject() -> None:
    assert importlib.metadata.version("django-gomq") == PROJECT["version"]


def test_pytest_finds_the_plugin() -> None:
    points = importlib.metadata.entry_points(group="pytest11", name="django_gomq")

    assert {point.value for point in points} == {"django_gomq.testing.plugin"}


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
