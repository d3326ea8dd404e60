"""The README's first example, pasted into a fresh project, does what it says."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.docs.pasting import ROOT, paste, running, start_project
from tests.ports import free_port

SUCCESS = (
    'gomq_messages_processed_total{broker="default",'
    'consumer="mysite.count_view",event="page.viewed",outcome="success"} 1.0'
)


def test_the_fifteen_lines_handle_and_count_an_event(tmp_path: Path) -> None:
    start_project(tmp_path)

    pasted = paste(ROOT / "README.md", tmp_path, only="mysite/")

    assert pasted == ["mysite/settings.py", "mysite/consumers.py", "mysite/urls.py"]
    port = free_port()
    command = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
    with running(tmp_path, command, port) as server:
        server.wait_for("/", "hello")
        server.wait_for("/gomq/metrics", SUCCESS)
        assert "handled /" in server.log
