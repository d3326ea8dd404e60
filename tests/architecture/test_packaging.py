from __future__ import annotations

import importlib.metadata
import re
import tomllib

from packaging.requirements import Requirement

from .interpreter import PACKAGE, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PARTS = EXTRAS.keys() - {"all", "bench"}
"""What a site picks from."""
README = (ROOT / "README.md").read_text()


def test_every_dependency_has_a_lower_and_an_upper_bound() -> None:
    for_users = [EXTRAS[name] for name in PARTS]
    listed = [*PROJECT["dependencies"], *(one for extra in for_users for one in extra)]

    for each in map(Requirement, listed):
        assert {bound.operator for bound in each.specifier} == {">=", "<"}, each


def test_one_extra_has_all_that_a_site_may_need() -> None:
    (every,) = map(Requirement, EXTRAS["all"])

    assert (every.name, every.extras) == (PROJECT["name"], PARTS)


def test_the_readme_names_every_extra_that_a_site_may_need() -> None:
    for name in [*PARTS, "all"]:
        assert f"pip install '{PROJECT['name']}[{name}]'" in README, name


def test_no_client_of_a_server_comes_without_its_extra() -> None:
    always = {Requirement(each).name for each in PROJECT["dependencies"]}
    optional = {Requirement(each).name for name in PARTS for each in EXTRAS[name]}

    assert always & optional == set()


def test_what_figures_are_compared_with_is_pinned() -> None:
    for each in map(Requirement, EXTRAS["bench"]):
        assert [bound.operator for bound in each.specifier] == ["=="], each


LINKS = re.findall(r"\]\(([^)\s]+)\)", README)


def test_the_readme_has_no_relative_link() -> None:
    # PyPI shows it without the repository around it.
    assert LINKS
    assert [link for link in LINKS if not link.startswith("https://")] == []


def test_the_links_of_the_readme_lead_to_files_of_the_repository() -> None:
    source = PROJECT["urls"]["Source"]
    raw = source.replace("//github.com/", "//raw.githubusercontent.com/")
    prefixes = (f"{source}/blob/main/", f"{raw}/main/")
    own = {
        link.removeprefix(prefix).partition("#")[0]
        for link in LINKS
        for prefix in prefixes
        if link.startswith(prefix)
    }

    assert len(own) >= 10
    assert [path for path in own if not (ROOT / path).is_file()] == []


def test_the_package_index_is_told_where_things_are() -> None:
    urls = PROJECT["urls"]

    assert {"Homepage", "Documentation", "Changelog", "Issues", "Source"} == set(urls)
    assert all(url.startswith(urls["Source"]) for url in urls.values())


def test_the_installed_version_is_the_one_in_pyproject() -> None:
    assert importlib.metadata.version("django-gomq") == PROJECT["version"]


def test_pytest_finds_the_plugin() -> None:
    points = importlib.metadata.entry_points(group="pytest11", name="django_gomq")

    assert {point.value for point in points} == {"django_gomq.testing.plugin"}


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
