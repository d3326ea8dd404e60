"""How a process ends: commands that wait, signals that come in the midst of it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

import pytest

from tests.django_site.programs import ROOT, environment, run_program
from tests.django_site.waiting import SECONDS

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="signals are those of Unix: use one"
)

SITE: Final = """
import logging, os, signal, sys, threading, time
logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
from django.conf import settings
from django.core import management
from django_gomq import consumer, emit, get_broker

class Command(management.BaseCommand):
    requires_system_checks = []
    def handle(self, **options):
        run()
        said.append("ended")
        say("ended")

management.get_commands().update(work=Command())

def say(text):
    os.write(1, f"{text}\\n".encode())

@consumer("slow.one", name="slow")
def handle(message):
    if not message.data:
        say("draining" if "ended" in said else "handling")
        hold_back()
    time.sleep(0.01)
    say("handled")

@consumer("stuck.one", name="stuck")
def stick(message):
    say("stuck")
    threading.Event().wait()

said = []

def hold_back():
    pass

def emit_slow(count=20):
    for number in range(count):
        emit("slow.one", number)
"""
AS_COMMAND: Final = "\nmanagement.execute_from_command_line(['mysite', 'work'])"
AS_SCRIPT: Final = "\nimport django; django.setup(); run(); say('ended')"
LEFT: Final = "gomq.bus WARNING Broker default stopped"


def command(body: str, **gomq: object) -> str:
    return f"{SITE}\nsettings.GOMQ = {gomq}\ndef run():\n    {body}\n{AS_COMMAND}"


def script(body: str, **gomq: object) -> str:
    return f"{SITE}\nsettings.GOMQ = {gomq}\ndef run():\n    {body}\n{AS_SCRIPT}"


KINDS: Final = {"command": command, "script": script}


def with_setup(code: str, setup: str) -> str:
    """Return the program, which does this before it runs."""
    return code.replace("def run()", f"{setup}\ndef run()")


def ending_within(seconds: float, code: str) -> str:
    """Return the program with another limit of its end by a signal, or of a server."""
    return with_setup(
        code, f"from django_gomq.process import role\nrole.DRAIN_SECONDS = {seconds}"
    )


def draining_fast(kind: str, body: str) -> str:
    """Return a program that says every 0.05 s of its drain what is left."""
    return with_setup(
        KINDS[kind](body),
        "import django_gomq.bus.worker.drain as drain\ndrain.TELL_SECONDS = 0.05",
    )


UNTIL_TOLD: Final = f"""
told = threading.Event()

def note(record):
    if "messages left" in record.getMessage():
        told.set()
    return True

logging.getLogger("gomq.bus").addFilter(note)

def hold_back():
    told.wait({SECONDS})
"""
UNTIL_INPUT_ENDS: Final = "def hold_back(): os.read(0, 1)"


class Program:
    """A program that is sent signals when it has said something.

    Its pipes are read without a buffer: what one took, ``communicate`` would not see.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.said: list[str] = []
        self.log = ""

    def wait_for(self, line: str) -> None:
        assert self.process.stdout is not None
        while line not in self.said:
            read = self.process.stdout.readline().decode()
            assert read, f"it ended and never said {line!r}: {self.said}"
            self.said.append(read.strip())

    def wait_for_the_drain(self) -> None:
        assert self.process.stderr is not None
        while "has 1 messages left" not in self.log:
            self.log = self.process.stderr.readline().decode()
            assert self.log, "it ended and never said that it drains"

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """End its input and wait for its end; return its code."""
        out, log = self.process.communicate(timeout=2 * SECONDS)
        self.said += out.decode().split("\n")
        self.log = log.decode()
        return self.process.returncode


@contextmanager
def running(code: str) -> Iterator[Program]:
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    with process:
        try:
            yield Program(process)
        finally:
            process.kill()


# ------------------------------------------------------------------ commands


def test_a_command_ends_when_its_messages_are_handled_and_may_set_its_code() -> None:
    done = run_program(command("emit_slow()"))

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("handled\n") == 20
    assert "Drained by threading" in done.stderr


def test_a_command_that_leaves_messages_ends_with_another_code() -> None:
    code = command("emit('stuck.one')", DRAIN_TIMEOUT=0.1)
    done = run_program(ending_within(3600.0, code))

    assert done.returncode == 1
    assert re.search(rf"{LEFT} in \d+\.\d", done.stderr)
    assert "left 1 in work" in done.stderr


def test_a_command_waits_for_no_message_that_comes_too_late() -> None:
    done = run_program(command("emit('slow.one', delay=300)", DRAIN_TIMEOUT=200))

    assert done.returncode == 1
    assert "left 1 undelivered (slow.one: 1)" in done.stderr


@pytest.mark.parametrize(("code", "expected"), [(None, 1), (0, 1), (3, 3), ("no", 1)])
def test_the_code_of_a_command_that_failed_stays(code: object, expected: int) -> None:
    done = run_program(
        command(f"emit('stuck.one'); sys.exit({code!r})", DRAIN_TIMEOUT=0.1)
    )

    assert done.returncode == expected
    assert LEFT in done.stderr


def test_a_script_that_leaves_messages_says_so_and_keeps_its_code() -> None:
    done = run_program(script("emit('stuck.one')", DRAIN_TIMEOUT=0.1))

    assert done.returncode == 0
    assert LEFT in done.stderr


def test_a_program_may_run_several_commands_one_after_the_other() -> None:
    done = run_program(command("emit_slow()") + AS_COMMAND)

    assert done.stdout.count("handled\n") == 40
    assert done.stdout.count("ended\n") == 2
    assert done.returncode == 0, done.stderr


def test_a_command_that_a_program_calls_is_not_its_end() -> None:
    done = run_program(
        f"{SITE}\nimport django; django.setup()\nrun = emit_slow\n"
        "management.call_command('work'); emit_slow()"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("handled\n") == 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_drain_says_how_many_are_left(kind: str) -> None:
    code = draining_fast(kind, "emit_slow(100)")

    done = run_program(with_setup(code, UNTIL_TOLD))

    assert "WARNING Broker default has " in done.stderr
    assert done.stdout.count("handled\n") == 100


# ------------------------------------------------------------------ signals


@pytest.mark.parametrize("kind", KINDS)
def test_a_sigterm_in_the_midst_of_a_drain_lets_it_end(kind: str) -> None:
    code = with_setup(KINDS[kind]("emit_slow(200)"), UNTIL_INPUT_ENDS)
    with running(ending_within(SECONDS, code)) as program:
        program.wait_for("ended")
        program.send(signal.SIGTERM)

        code_of_end = program.end()

    assert code_of_end == -signal.SIGTERM, program.log
    assert program.said.count("handled") == 200
    assert LEFT not in program.log


@pytest.mark.parametrize("kind", KINDS)
def test_a_sigterm_in_the_midst_of_a_drain_bounds_it_and_says_what_is_left(
    kind: str,
) -> None:
    with running(ending_within(0.2, KINDS[kind]("emit('stuck.one')"))) as program:
        program.wait_for("ended")
        program.wait_for("stuck")
        program.send(signal.SIGTERM)

        code = program.end()

    assert code == -signal.SIGTERM, program.log
    assert f"{LEFT} " in program.log
    assert "left 1 in work" in program.log


def test_a_sigterm_in_the_midst_of_a_close_lets_it_end_by_the_shorter_limit() -> None:
    body = "emit('stuck.one'); say('closing'); get_broker().close(3600)"
    with running(script(body, DRAIN_TIMEOUT=0.2)) as program:
        program.wait_for("stuck")
        program.wait_for("closing")
        program.send(signal.SIGTERM)

        code = program.end()

    assert code == -signal.SIGTERM
    assert "left 1 in work" in program.log


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_signal_ends_it_at_once(kind: str, second: signal.Signals) -> None:
    code = KINDS[kind]("emit('stuck.one')", DRAIN_TIMEOUT=3600.0)
    with running(code) as program:
        program.wait_for("stuck")
        program.wait_for("ended")
        program.send(signal.SIGTERM)
        while program.process.poll() is None:
            program.send(second)

        code_of_end = program.end()

    assert code_of_end in (-second, -signal.SIGTERM)
    # Of two signals that wait, the one with the lower number is taken first: a Ctrl-C
    # may be the first one then, which says what it left.
    if second == signal.SIGTERM:
        assert LEFT not in program.log


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_in_the_midst_of_a_drain_ends_it_and_says_what_is_left(
    kind: str,
) -> None:
    with running(draining_fast(kind, "emit('stuck.one')")) as program:
        program.wait_for_the_drain()
        program.send(signal.SIGINT)

        code = program.end()

    assert code == (-signal.SIGINT if kind == "command" else 0), program.log
    assert "left 1 in work" in program.log
    assert program.log.count(LEFT) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_drains_and_once_more_ends_it(kind: str) -> None:
    body = "emit('stuck.one'); say('waits'); threading.Event().wait()"
    with running(draining_fast(kind, body)) as program:
        program.wait_for("stuck")
        program.wait_for("waits")
        program.send(signal.SIGINT)
        program.wait_for_the_drain()
        program.send(signal.SIGINT)

        code_of_end = program.end()

    assert code_of_end == -signal.SIGINT
    assert "left 1 in work" in program.log


# ------------------------------------------------------------------ elsewhere


def test_children_of_a_pool_that_is_left_by_its_block_finish_what_they_emitted() -> (
    None
):
    done = run_program(
        f"""{SITE}
import django; django.setup()
import multiprocessing
def work(number):
    emit("slow.one", number)
with multiprocessing.get_context("fork").Pool(2) as pool:
    pool.map(work, range(20), chunksize=1)
"""
    )

    assert done.stdout.count("handled\n") == 20, done.stderr


def test_django_is_set_up_in_a_sub_interpreter_which_handles_its_events() -> None:
    code = (
        f"{SITE}\nimport django; django.setup(); emit_slow(3)\n"
        "from django_gomq import site; site.close()"
    )
    if find_spec("_interpreters"):  # Python 3.13
        make = "import _interpreters as it; one = it.create('legacy')"
    else:
        make = "import _xxsubinterpreters as it; one = it.create(isolated=False)"

    done = run_program(f"{make}; it.run_string(one, {code!r})")

    assert done.stdout.count("handled\n") == 3, done.stderr
    assert done.returncode == 0, done.stderr


BLOCKERS: Final = {
    "filter": "logging.getLogger('gomq.shutdown').addFilter(block)",
    "handler": "logging.getLogger('gomq').addHandler(Blocking())",
}


@pytest.mark.parametrize("blocker", BLOCKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_logging_that_blocks_keeps_no_process_from_its_end(
    kind: str, blocker: str
) -> None:
    blocks = """
def block(record):
    threading.Event().wait()

class Blocking(logging.Handler):
    emit = staticmethod(block)

def run()"""
    code = KINDS[kind](f"{BLOCKERS[blocker]}; emit_slow(3)")

    done = run_program(code.replace("def run()", blocks))

    assert done.stdout.count("handled\n") == 3
    assert done.returncode == 0
