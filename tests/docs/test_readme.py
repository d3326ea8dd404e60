"""The README's first example, pasted into a fresh project, does what it says."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"```python\n# (mysite/\S+?\.py)( \(at the end\))?\n(.*?)```", re.DOTALL
)


def paste_examples(project: Path) -> list[str]:
    readme = (ROOT / "README.md").read_text()
    pasted = []
    for path, at_the_end, code in BLOCK.findall(readme):
        target = project / path
        before = target.read_text() if at_the_end else ""
        target.write_text(before + code)
        pasted.append(path)
    return pasted


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if "DJANGO" not in key}
    return {**kept, "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"{what} did not come within 20 s")


def page(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            text: str = response.read().decode()
            return text
    except OSError:
        return ""


@contextmanager
def running(project: Path, port: int) -> Iterator[Path]:
    log = project / "server.log"
    command = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=project, env=environment(), stdout=output, stderr=output
        )
        try:
            yield log
        finally:
            server.terminate()
            server.wait(timeout=10)


def test_the_fifteen_lines_handle_and_count_an_event(tmp_path: Path) -> None:
    start = [sys.executable, "-m", "django", "startproject", "mysite", str(tmp_path)]
    subprocess.run(start, check=True, env=environment(), timeout=30)

    pasted = paste_examples(tmp_path)

    assert pasted == ["mysite/settings.py", "mysite/consumers.py", "mysite/urls.py"]
    port = free_port()
    with running(tmp_path, port) as log:
        wait_for(lambda: page(f"http://127.0.0.1:{port}/") == "hello", "the page")
        success = (
            'gomq_messages_processed_total{broker="default",'
            'consumer="mysite.count_view",event="page.viewed",outcome="success"} 1.0'
        )
        metrics = f"http://127.0.0.1:{port}/gomq/metrics"
        wait_for(lambda: success in page(metrics), "the count of success")
        assert "handled /" in log.read_text()
