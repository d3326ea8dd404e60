"""The matrix of Python and Django, and a look at the wheel that users install.

It takes the interpreters that are on the machine and installs none.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import nox

# Python -> the Django that is tested with it; the ends of both ranges in CI.
DJANGO = {"3.11": "5.2", "3.12": "6.0", "3.13": "6.1"}
OLDEST = "3.11"
FREE_THREADED_TOOLS = [
    line
    for line in Path("requirements/test.txt").read_text().splitlines()
    if line.startswith(("coverage", "hypothesis", "pytest"))
]

# Where another Python changes nothing: more servers of a kind, promtool, the layout.
ONCE_IS_ENOUGH = (
    "tests/architecture",
    "tests/backends/test_database_on_mariadb.py",
    "tests/backends/test_database_on_pgbouncer.py",
    "tests/backends/test_redis_on_valkey.py",
    "tests/backends/test_redis_with_outbox.py",
    "tests/dashboards",
)

# Some of what is no code and has to be in the wheel.
DATA = (
    "django_gomq/dashboards/grafana/gomq-overview.json",
    "django_gomq/dashboards/options.json",
    "django_gomq/dashboards/prometheus/alerts.yml",
    "django_gomq/dashboards/runbooks/GomqMessagesDropped.md",
    "django_gomq/static/gomq/htmx/LICENSE",
    "django_gomq/static/gomq/live.css",
    "django_gomq/templates/gomq/live/page.html",
)


def put_pyenv_on_path() -> None:
    """Let nox find what pyenv has installed, also versions not switched on."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(str(folder) for folder in root.glob("versions/3.*/bin"))
    os.environ["PATH"] = os.pathsep.join([*found, os.environ.get("PATH", os.defpath)])


put_pyenv_on_path()
nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"
nox.options.sessions = ["tests-3.11", "tests-3.13", "package"]
# A missing interpreter is skipped with a message, but the oldest one has to be there.
nox.options.error_on_missing_interpreters = shutil.which(f"python{OLDEST}") is None


@nox.session(python=list(DJANGO))
def tests(session: nox.Session) -> None:
    """Run the tests of the package on one Python and its Django."""
    django = f"django=={DJANGO[str(session.python)]}.*"
    session.install("-r", "requirements/test.txt", "-e", ".[otel,redis]", django)
    session.run("python", "-m", "django", "--version")
    ignored = [f"--ignore={path}" for path in ONCE_IS_ENOUGH]
    session.run("python", "-m", "pytest", "-n", "auto", *ignored, *session.posargs)


@nox.session(python=["3.13t", "3.14t"])
def free_threaded(session: nox.Session) -> None:
    """Run the tests of the bus where no interpreter lock guards it."""
    # Not requirements/test.txt: not all of it has wheels for such builds.
    session.install("-e", ".", *FREE_THREADED_TOOLS)
    session.run("python", "-m", "pytest", "tests/bus", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel; the wheel must hold the package, and nothing else."""
    session.install("-r", "requirements/build.txt")
    folder = Path(session.create_tmp())
    shutil.rmtree(folder)
    session.run("python", "-m", "build", "--outdir", str(folder), silent=True)
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    strays = [n for n in names if not n.startswith(("django_gomq/", "django_gomq-"))]
    missing = {"django_gomq/py.typed", *DATA}.difference(names)
    if strays or missing:
        session.error(f"{wheel.name} holds {strays}, or lacks {missing}")
    session.install(str(wheel))
    # Away from the checkout, where "import django_gomq" would find the sources.
    with session.chdir(folder):
        session.run("python", "-c", "import django_gomq; print(django_gomq.__file__)")
