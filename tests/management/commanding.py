"""Runs ``manage.py gomq`` as a shell does, or in this process; it asserts nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Final
from unittest import mock

from django.core.management import execute_from_command_line

from tests.django_site.programs import ROOT, environment
from tests.django_site.waiting import SECONDS

_MANAGE: Final = (
    "import sys; from django.core.management import execute_from_command_line;"
    "sys.argv[0] = 'manage.py'; execute_from_command_line(sys.argv)"
)
PATIENT: Final = ("--timeout", f"{SECONDS:g}")
"""Options of ``gomq stats``, on a machine that does much else."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", _MANAGE, "gomq", *arguments]


def gomq(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end in this process, with this site."""
    argv = ["manage.py", "gomq", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.dict(os.environ, environ),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            execute_from_command_line(argv)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def run_gomq(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end in a process of its own."""
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        check=False,
    )
