from __future__ import annotations

from pathlib import Path

import pytest

from tests.django_site.programs import FLUSH_LONGER, run_program
from tests.observability.golden import check_series

GOLDEN = Path(__file__).parent / "golden" / "metrics_before_first_emit.txt"

WATCHED_SETUP = """
import sys, threading
watched = ("sqlite3.connect", "socket.__new__", "os.fork")
seen, start = [], threading.Thread.start
def start_noted(thread):
    seen.append(thread.name)
    start(thread)
threading.Thread.start = start_noted
sys.addaudithook(lambda event, args: event in watched and seen.append(event))
import django
django.setup()
print(seen, threading.active_count())
"""


def test_ready_starts_no_thread_opens_no_socket_and_runs_no_query() -> None:
    done = run_program(WATCHED_SETUP)

    assert (done.stdout, done.stderr) == ("[] 1\n", "")


EMIT = """
import sys, threading
sys.argv = {argv!r}
import django
django.setup()
from django_gomq import emit
receipts = [emit("clinic.visit.made", n) for n in range(3)]
threads = {{one.name for one in threading.enumerate() if one.name.startswith("gomq")}}
threads.discard("gomq-housekeeping")  # which writes the one line
print(sorted({{one.reason or one.state for one in receipts}}), len(threads) > 0)
"""


@pytest.mark.parametrize(
    ("argv", "environ", "told"),
    [
        (["manage.py", "runserver"], {}, "['not_running'] False"),
        (["manage.py", "migrate"], {"GOMQ_RUN": "here"}, "['accepted'] True"),
    ],
)
def test_consumers_start_where_the_command_line_and_the_environment_let_them(
    argv: list[str], environ: dict[str, str], told: str
) -> None:
    done = run_program(FLUSH_LONGER + EMIT.format(argv=argv), **environ)

    assert done.stdout.strip() == told, done.stderr
    assert done.returncode == 0
    # One warning where events are refused, however many.
    assert len(done.stderr.splitlines()) == ("not_running" in told), done.stderr


def test_a_wrong_word_in_the_environment_ends_the_program_with_a_clear_error() -> None:
    done = run_program("import django; django.setup()", GOMQ_RUN="yes")

    assert done.returncode == 1
    assert "GOMQ_RUN='yes'; it can be here or worker" in done.stderr


COMMAND = """
import sys
sys.argv = ["manage.py", "import_records"]
from django_gomq import consumer, emit
handled = []

@consumer("import.record", name="writes", overflow="backpressure")
def write(message):
    handled.append(message.data)

import atexit
atexit.register(lambda: print("handled", len(handled)))
import django
django.setup()
for number in range(500):
    assert emit("import.record", number, timeout=60)
"""


def test_a_command_finishes_what_it_emitted_before_it_ends() -> None:
    done = run_program(COMMAND)

    assert (done.stdout, done.returncode) == ("handled 500\n", 0), done.stderr


STUCK = """
import sys, threading
from django.conf import settings
settings.GOMQ = {"DRAIN_TIMEOUT": 0.2}
from django_gomq import consumer, emit

@consumer("import.record", name="stuck")
def wait(message):
    threading.Event().wait()

import django
django.setup()
for number in range(3):
    emit("import.record", number)
"""


def test_a_stuck_handler_does_not_keep_the_program_from_ending() -> None:
    done = run_program(FLUSH_LONGER + STUCK)

    assert done.returncode == 0
    assert "left" in done.stderr
    assert "import.record" in done.stderr


LATE = """
import atexit
late = []
atexit.register(lambda: print(*(emit(name).reason for name in ("a.b", "c.d"))))
from django.conf import settings
settings.GOMQ = {
    "BROKERS": {"default": {}, "second": {}}, "ROUTES": {"c.*": "second"}
}
from django_gomq import consumer, emit
consumer("a.b", "c.d", name="both")(lambda message: None)
import django
django.setup()
emit("a.b")
"""


def test_an_emit_after_the_end_is_refused_without_a_traceback() -> None:
    done = run_program(LATE)

    assert done.stdout == "closed not_running\n"
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


WITHOUT_METRICS = """
import sys
from django.conf import settings
settings.GOMQ = {"METRICS": {"ENABLED": False}}
import django
django.setup()
from django_gomq import emit
print(emit("clinic.visit.made").state, "prometheus_client" in sys.modules)
"""


def test_without_metrics_the_client_library_is_not_even_loaded() -> None:
    done = run_program(WITHOUT_METRICS)

    assert done.stdout == "accepted False\n", done.stderr


UNINSTALLED = """
from django.conf import settings
settings.configure(INSTALLED_APPS=[])
import django
django.setup()
from django_gomq import emit
print(emit("page.viewed", {"path": "/"}))
"""


def test_a_project_without_the_app_may_call_emit() -> None:
    done = run_program(UNINSTALLED, DJANGO_SETTINGS_MODULE="")

    assert "reason='not_installed'" in done.stdout, done.stderr


SCRAPE = """
import django
django.setup()
from django.test import Client
print(Client().get("/gomq/metrics").content.decode())
"""


def test_before_its_first_emit_a_site_has_just_these_series() -> None:
    done = run_program(SCRAPE)

    assert done.returncode == 0, done.stderr
    check_series(done.stdout, GOLDEN)


RUNNER = """
import sys
sys.argv = ["manage.py", "test", "user_tests", "-v", "0"]
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""

USER_TESTS = """
import threading
from django.test import TestCase, TransactionTestCase
from django_gomq import emit, get_broker
from django_gomq.testing import capture, live

class Captured(TestCase):
    def test_capture_is_the_default(self):
        with capture() as events:
            emit("clinic.visit.made", 1)
        events.assert_emitted("clinic.visit.made", count=1)
        assert threading.active_count() == 1

class Live(TransactionTestCase):
    def test_live_runs_consumers(self):
        with live():
            assert emit("clinic.visit.made", 1).state == "accepted"
            assert get_broker().close(60).is_clean
            stats = get_broker().stats().consumers["clinic.audit"]
            assert stats.succeeded == 1
"""


def test_the_kit_works_under_djangos_own_runner(tmp_path: Path) -> None:
    from tests.django_site.programs import ROOT

    (tmp_path / "user_tests.py").write_text(USER_TESTS)

    done = run_program(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{RUNNER}",
        PYTHONPATH=str(tmp_path),
    )

    assert done.returncode == 0, done.stderr
    assert "Ran 2 tests" in done.stderr
