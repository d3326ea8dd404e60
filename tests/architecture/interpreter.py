"""Runs code in a fresh interpreter: what an import loads is seen only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "django_gomq"

_REFUSE = """\
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    names = {names!r}

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self.names:
            text = f"{{fullname}} is not installed here"
            raise ModuleNotFoundError(text, name=fullname)

sys.meta_path.insert(0, Refuse())
"""


def run_python(code: str, *, without: tuple[str, ...] = ()) -> str:
    """Run the code with no project configured; the packages ``without`` are absent."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DJANGO_", "GOMQ_", "PYTEST_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", _REFUSE.format(names=without) + code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
