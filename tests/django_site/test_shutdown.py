from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.django_site.programs import FLUSH_LONGER, ROOT, environment, run_program
from tests.django_site.waiting import SECONDS

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="signals are those of Unix: use one"
)

SITE = """
import logging, os, signal, sys, threading, time
logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
sys.argv = ["manage.py", "import_records"]
from django.conf import settings
settings.GOMQ = {"DRAIN_TIMEOUT": 60}
from django_gomq import consumer, emit, get_broker
begun, gate, handled = threading.Event(), threading.Event(), []

@consumer("a.b", name="slow", capacity=100)
def handle(message):
    begun.set()
    gate.wait()
    handled.append(message.data)
    os.write(1, f"{message.data} ".encode())

def emit_three():
    for number in range(3):
        assert emit("a.b", number)

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
"""
SET_UP = "import django; django.setup()\n"
DRAINED = "gomq.shutdown INFO Drained by"


def run(code: str, *, flushes_longer: bool = True) -> subprocess.CompletedProcess[str]:
    return run_program(SITE + (FLUSH_LONGER if flushes_longer else "") + code)


def test_a_sigterm_that_nobody_handles_drains_and_still_ends_by_the_signal() -> None:
    done = run(
        SET_UP + "emit_three(); terminate(); gate.set(); threading.Event().wait()"
    )

    assert done.stdout == "0 1 2 "
    assert done.returncode == -signal.SIGTERM
    assert done.stderr.count(DRAINED) == 1
    assert f"{DRAINED} sigterm" in done.stderr


def test_logging_that_blocks_keeps_no_sigterm_from_its_end() -> None:
    done = run(
        SET_UP
        + """
blocks = threading.Event().wait
logging.getLogger("gomq.shutdown").addFilter(lambda record: blocks())
emit_three(); terminate(); gate.set(); threading.Event().wait()
""",
        flushes_longer=False,
    )

    assert done.stdout == "0 1 2 "
    assert done.returncode == -signal.SIGTERM


def test_a_main_thread_that_ends_by_itself_after_a_sigterm_changes_nothing() -> None:
    # uvicorn raises the signal again after its own shutdown, and goes on to its end.
    done = run(SET_UP + "emit_three(); terminate(); gate.set()")

    assert done.stdout == "0 1 2 "
    assert done.returncode == -signal.SIGTERM
    assert done.stderr.count(DRAINED) == 1


def test_a_second_sigterm_ends_the_process_at_once() -> None:
    done = run(
        SET_UP + "emit_three(); terminate()\nfor _ in range(100): terminate()",
    )

    assert done.stdout == ""
    assert done.returncode == -signal.SIGTERM
    assert DRAINED not in done.stderr


def test_a_sigterm_ends_a_process_that_never_emitted_at_once() -> None:
    done = run(SET_UP + "terminate(); print('alive', flush=True)")

    assert (done.stdout, done.returncode) == ("", -signal.SIGTERM)
    assert DRAINED not in done.stderr


def test_a_stuck_handler_keeps_no_process_beyond_the_limit_and_is_counted() -> None:
    code = "emit_three(); begun.wait(60); terminate(); threading.Event().wait()"
    done = run("settings.GOMQ['DRAIN_TIMEOUT'] = 0.5\n" + SET_UP + code)

    assert done.returncode == -signal.SIGTERM
    warnings = [one for one in done.stderr.splitlines() if "WARNING" in one]
    assert len(warnings) == 1
    assert "left 2 undelivered (a.b: 2), 1 in work" in warnings[0]
    assert ": 3 left" in done.stderr


@pytest.mark.parametrize("before", ["handler", "ignored", "thread", "idle"])
def test_nobody_elses_sigterm_is_touched(before: str) -> None:
    code = {
        "handler": "mine = lambda *_: None\nsignal.signal(signal.SIGTERM, mine)\n",
        "ignored": "mine = signal.SIG_IGN\nsignal.signal(signal.SIGTERM, mine)\n",
        "thread": "mine = signal.SIG_DFL\n",
        "idle": "mine = signal.SIG_DFL\nsys.argv[1] = 'migrate'\n",
    }[before]
    set_up = "import django\nsetting_up = threading.Thread(target=django.setup)\n"
    set_up += "setting_up.start(); setting_up.join()\n"

    done = run(
        code
        + (set_up if before == "thread" else SET_UP)
        + "print(signal.getsignal(signal.SIGTERM) is mine)\n"
        + "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )

    assert done.stdout == "True\nTrue\n", done.stderr


def test_a_forked_child_without_work_ends_at_once_and_leaves_its_parent_alone() -> None:
    done = run(
        SET_UP
        + "emit_three()\n"
        + "child = os.fork()\n"
        + "if not child: terminate(); os._exit(1)\n"
        + "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        + "print(status, get_broker().is_started, flush=True); gate.set()"
    )

    assert done.stdout.startswith(f"{-signal.SIGTERM} True")
    assert done.returncode == 0
    assert done.stdout.split()[2:] == ["0", "1", "2"]
    assert done.stderr.count(DRAINED) == 1


def test_handlers_can_use_executors_in_the_drain_at_the_interpreters_end() -> None:
    done = run(
        "import asyncio\n"
        "from asgiref.sync import sync_to_async\n"
        "@consumer('c.d', name='async')\n"
        "async def use_executor(message):\n"
        "    await asyncio.to_thread(gate.wait)\n"
        "    await sync_to_async(lambda: None)()\n"
        "    os.write(1, b'used ')\n"
        + SET_UP
        + "emit('c.d')\n"
        + "threading.Timer(0.1, gate.set).start()"
    )

    assert (done.stdout, done.returncode) == ("used ", 0), done.stderr
    assert f"{DRAINED} threading" in done.stderr


def test_a_drain_at_the_interpreters_end_starts_no_thread() -> None:
    # Python 3.12.0 to 3.12.2 cannot start one then, wherever it is asked to.
    done = run(
        "@consumer('c.d', name='async')\n"
        "async def handle_async(message): os.write(1, b'async ')\n"
        + SET_UP
        + "started, start = [], threading.Thread.start\n"
        + "def start_noted(thread):\n"
        + "    if thread.name.startswith('gomq'): started.append(thread.name)\n"
        + "    start(thread)\n"
        + "def begin_the_end():\n"
        + "    threading.Thread.start = start_noted\n"
        + "    gate.set()\n"
        + "threading._register_atexit(begin_the_end)\n"
        + "import atexit; atexit.register(lambda: print(started))\n"
        + "emit_three(); emit('c.d')"
    )

    assert sorted(done.stdout.split()) == sorted(["0", "1", "2", "async", "[]"])
    assert done.returncode == 0, done.stderr


def test_without_the_hook_of_threading_the_drain_comes_at_atexit() -> None:
    done = run("del threading._register_atexit\n" + SET_UP + "emit_three(); gate.set()")

    assert (done.stdout, done.returncode) == ("0 1 2 ", 0), done.stderr
    assert f"{DRAINED} atexit" in done.stderr


def test_children_of_multiprocessing_drain_at_their_end() -> None:
    done = run(
        SET_UP
        + "import multiprocessing\n"
        + "def work(): emit_three(); gate.set()\n"
        + "child = multiprocessing.get_context('fork').Process(target=work)\n"
        + "child.start(); child.join(); print(child.exitcode)"
    )

    assert done.stdout == "0 1 2 0\n", done.stderr
    assert f"{DRAINED} threading" in done.stderr


def test_celerys_children_drain_by_its_signal() -> None:
    done = run(
        "from celery.signals import worker_process_shutdown\n"
        + SET_UP
        + "emit_three(); gate.set()\n"
        + "worker_process_shutdown.send(None, pid=1, exitcode=0)\n"
        + "sys.stdout.flush(); sys.stderr.flush(); os._exit(0)"
    )

    assert done.stdout == "0 1 2 ", done.stderr
    assert f"{DRAINED} celery" in done.stderr


def test_ctrl_c_drains_as_it_ends_the_program() -> None:
    code = "emit_three(); gate.set(); print('up', flush=True); threading.Event().wait()"
    process = subprocess.Popen(
        [sys.executable, "-c", SITE + FLUSH_LONGER + SET_UP + code],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert any("up" in line for line in process.stdout), "it ended too early"
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=SECONDS)
        finally:
            process.kill()

    assert "KeyboardInterrupt" in told
    assert f"{DRAINED} threading" in told
