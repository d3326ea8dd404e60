"""``gomq worker`` runs consumers of servers, and ends in an orderly way."""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.django_site.programs import run_program
from tests.django_site.waiting import SECONDS, wait_until
from tests.management.commanding import command
from tests.management.durable_site import DurableSite
from tests.ports import free_port


def page(url: str) -> str:
    """Return a page, or nothing if there is no answer."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            text: str = response.read().decode()
            return text
    except OSError:
        return ""


# ------------------------------------------------------------ what keeps it from work


@pytest.mark.parametrize(
    ("is_migrated", "told"),
    [(False, "run manage.py migrate gomq"), (True, "Run manage.py gomq setup.")],
)
@pytest.mark.parametrize("options", [[], ["--processes", "2"]])
def test_a_worker_of_a_broken_set_up_ends_at_once_and_says_what_to_run(
    bare: DurableSite, is_migrated: bool, told: str, options: list[str]
) -> None:
    if is_migrated:
        bare.migrate()

    done = bare.gomq("worker", *options)

    assert done.returncode == 1
    assert "Broker 'default' cannot work yet:" in done.stderr
    assert told in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--consumers", "jobs.done,nosuch"], "there is no 'nosuch'; there are jobs.d"),
        (["--consumers", ","], "--consumers: there is no name; there are jobs.done"),
        (["--consumers", "jobs.local"], "no enabled one has events on 'default'"),
        (["--processes", "0"], "'0' is not a number of processes"),
        (["--processes", "many"], "'many' is not a number of processes"),
        (["--metrics-addr", "here"], "'here' is not HOST:PORT, such as 127.0.0.1:9464"),
        (["--metrics-addr", "localhost:0"], "'localhost:0' is not HOST:PORT"),
        (["--metrics-addr", "localhost:99999"], "'localhost:99999' is not HOST:PORT"),
        (
            ["--metrics-addr", "[::1]:65535", "--processes", "2"],
            "2 processes need the ports up to 65536, and the last one is 65535",
        ),
    ],
)
def test_a_wrong_option_says_what_would_be_right(
    durable: DurableSite, options: list[str], told: str
) -> None:
    done = durable.gomq("worker", *options)

    assert done.returncode == 2
    assert told in done.stderr


def test_metrics_that_are_switched_off_are_not_served(durable: DurableSite) -> None:
    done = durable.gomq(
        "worker", "--metrics-addr", "127.0.0.1:9464", METRICS={"ENABLED": False}
    )

    assert done.returncode == 2
    assert "GOMQ['METRICS']['ENABLED'] is False" in done.stderr


def test_metrics_for_staff_are_not_served_where_nobody_is_known(
    durable: DurableSite,
) -> None:
    done = durable.gomq(
        "worker", "--metrics-addr", "127.0.0.1:9464", METRICS={"ACCESS": "staff"}
    )

    assert done.returncode == 2
    assert "GOMQ['METRICS']['ACCESS'] is 'staff'" in done.stderr


# ------------------------------------------------------------ work, and its end


def test_it_handles_what_other_processes_emit_before_and_while_it_runs(
    durable: DurableSite,
) -> None:
    durable.emit("job.asked", "before")

    with durable.worker() as worker:
        durable.wait_for("done before", "seen before")
        durable.emit("job.asked", "while")
        durable.wait_for("done while", "seen while")

        assert {pid for _, pid in durable.notes} == {worker.process.pid}
        assert "(database)" in worker.log
        assert "runs: jobs.done, jobs.held, jobs.seen\n" in worker.log
        assert worker.end() == 0


def test_sigterm_finishes_what_is_in_work_however_often_it_comes(
    durable: DurableSite,
) -> None:
    durable.emit("job.held", "a")
    with durable.worker() as worker:
        durable.wait_for("begun a")

        worker.send(signal.SIGTERM)
        worker.wait_for("Stopping")
        worker.send(signal.SIGTERM)
        (durable.folder / "a").touch()

        assert worker.process.wait(SECONDS) == 0
        assert "ended a" in {text for text, _ in durable.notes}
        assert "everything that was taken was finished or given back" in worker.log


def test_a_handler_that_does_not_end_is_told_and_fails_the_worker(
    durable: DurableSite,
) -> None:
    durable.emit("job.held", "a")
    with durable.worker(DRAIN_TIMEOUT=0.1) as worker:
        durable.wait_for("begun a")

        assert worker.end() == 1
        assert "Stopped with 1 handlers still at work and 0 outcomes" in worker.log


def test_ctrl_c_drains_and_another_one_stops_at_once(durable: DurableSite) -> None:
    durable.emit("job.held", "a")
    with durable.worker(DRAIN_TIMEOUT=2 * SECONDS) as worker:
        durable.wait_for("begun a")

        worker.send(signal.SIGINT)
        worker.wait_for("Stopping")

        assert worker.end(signal.SIGINT) == 1
        assert "Stopped with 1 handlers still at work" in worker.log


def test_what_was_not_started_is_given_back_to_the_next_worker(
    durable: DurableSite,
) -> None:
    durable.emit("job.held", *[str(number) for number in range(20)])
    one_at_a_time = {"CONSUMERS": {"jobs.held": {"concurrency": 1}}}
    with durable.worker(DRAIN_TIMEOUT=0.1, **one_at_a_time) as worker:
        durable.wait_for("begun 0")
        worker.end()

    for number in range(20):
        (durable.folder / str(number)).touch()
    with durable.worker():
        durable.wait_for(*[f"ended {number}" for number in range(1, 20)])


def test_only_the_consumers_that_are_named_run(durable: DurableSite) -> None:
    durable.emit("job.asked", "1")

    with durable.worker("--consumers", "jobs.seen,jobs.held") as worker:
        durable.wait_for("seen 1")

        assert "runs: jobs.held, jobs.seen\n" in worker.log
        assert worker.end() == 0
    assert "done 1" not in {text for text, _ in durable.notes}
    with durable.worker("--consumers", "jobs.done"):
        durable.wait_for("done 1")


def test_a_consumer_that_was_not_recorded_keeps_no_other_from_work(
    bare: DurableSite,
) -> None:
    bare.migrate()
    bare.gomq("setup", CONSUMERS={"jobs.held": {"enabled": False}})

    with bare.worker("--consumers", "jobs.done"):
        bare.emit("job.asked", "1")
        bare.wait_for("done 1")


@pytest.mark.parametrize("options", [[], ["--consumers", "jobs.done"]])
def test_its_numbers_are_served_where_it_is_told(
    durable: DurableSite, options: list[str]
) -> None:
    port = free_port()
    handled = "gomq_messages_processed_total{"

    with durable.worker("--metrics-addr", f"127.0.0.1:{port}", *options) as worker:
        durable.emit("job.asked", "1")
        durable.wait_for("done 1")
        wait_until(
            lambda: any(
                line.endswith((" 1.0", " 1"))
                for line in page(f"http://127.0.0.1:{port}/metrics").splitlines()
                if line.startswith(handled) and "jobs.done" in line
            ),
            "the page of metrics",
        )

        assert worker.end() == 0


# ------------------------------------------------------------ a terminal


def test_a_terminal_shows_how_the_work_goes(durable: DurableSite) -> None:
    main, other = os.openpty()
    durable.emit("job.asked", "1")
    shown = b""

    with durable.running(command("worker"), output=other) as worker:
        os.close(other)
        while b"\r\x1b[K2 handled, 0 dead letters, 0 in work, 0 here" not in shown:
            shown += os.read(main, 1000)
        assert worker.end() == 0
    os.close(main)


def test_a_reader_that_goes_away_keeps_nothing_from_work(durable: DurableSite) -> None:
    mine, its = os.pipe()
    with durable.running(command("worker"), output=its) as worker:
        os.close(its)
        os.close(mine)  # as "| head" does
        durable.emit("job.asked", "1")
        durable.wait_for("done 1")

        assert worker.end() == 0
        assert "Broken" not in worker.log


@pytest.mark.parametrize("options", [[], ["--processes", "2"]])
def test_the_end_of_its_terminal_drains(
    durable: DurableSite, options: list[str]
) -> None:
    durable.emit("job.held", "a")
    with durable.worker(*options) as worker:
        durable.wait_for("begun a")

        os.killpg(worker.process.pid, signal.SIGHUP)
        worker.wait_for("Stopping")
        (durable.folder / "a").touch()

        assert worker.process.wait(SECONDS) == 0
        assert "ended a" in {text for text, _ in durable.notes}


# ------------------------------------------------------------ several processes


def test_processes_share_the_work_and_end_together(durable: DurableSite) -> None:
    with durable.worker("--processes", "2") as worker:
        wait_until(lambda: worker.log.count("runs:") == 2, "two processes")
        durable.emit("job.held", "a")
        durable.wait_for("begun a")

        worker.send(signal.SIGTERM)
        (durable.folder / "a").touch()

        assert worker.process.wait(SECONDS) == 0
        assert worker.log.count("Stopped; everything") == 2
        assert worker.process.pid not in {pid for _, pid in durable.notes}


SENT_AT_ONCE = """
import os, signal
from django_gomq.management.processes import supervise

forks = []

def send() -> None:
    if len(forks) == 1:
        os.kill(os.getpid(), signal.SIGTERM)

def work() -> int:
    os.write(1, b"It works.\\n")
    os.kill(os.getppid(), signal.SIGTERM)
    return 0

os.register_at_fork(before=lambda: forks.append(1), after_in_child=send)
supervise(1, work, lambda text: os.write(1, f"{text}\\n".encode()))
"""


def test_a_signal_reaches_a_process_that_has_just_begun() -> None:
    done = run_program(SENT_AT_ONCE, DJANGO_SETTINGS_MODULE="")

    ended, works = done.stdout.splitlines()
    assert ended.endswith("ended with 0; another one takes its place.")
    assert works == "It works."


def test_a_process_that_is_killed_is_replaced(durable: DurableSite) -> None:
    with durable.worker("--processes", "2") as worker:
        wait_until(lambda: worker.log.count("runs:") == 2, "two processes")
        durable.emit("job.asked", "1")
        durable.wait_for("done 1")
        (_, pid) = durable.notes[0]

        os.kill(pid, signal.SIGKILL)

        worker.wait_for(f"Process {pid} ended with -9; another one takes its place.")
        wait_until(lambda: worker.log.count("runs:") == 3, "a third process")
        durable.emit("job.asked", "2")
        durable.wait_for("done 2", "seen 2")
        assert worker.end() == 0


def test_the_exit_code_is_the_worst_of_all_processes(durable: DurableSite) -> None:
    with durable.worker("--processes", "2", DRAIN_TIMEOUT=0.1) as worker:
        wait_until(lambda: worker.log.count("runs:") == 2, "two processes")
        durable.emit("job.held", "a")
        durable.wait_for("begun a")

        assert worker.end() == 1
        assert worker.log.count("Stopped; everything") == 1
        assert worker.log.count("Stopped with 1 handlers still at work") == 1


def test_ctrl_c_of_a_terminal_drains_all_processes_and_again_stops_all(
    durable: DurableSite,
) -> None:
    with durable.worker("--processes", "2", DRAIN_TIMEOUT=2 * SECONDS) as worker:
        wait_until(lambda: worker.log.count("runs:") == 2, "two processes")
        durable.emit("job.held", "a")
        durable.wait_for("begun a")

        os.killpg(worker.process.pid, signal.SIGINT)  # as a terminal does
        worker.wait_for("Stopped; everything")
        assert worker.process.poll() is None
        os.killpg(worker.process.pid, signal.SIGINT)

        assert worker.process.wait(SECONDS) == 1
        assert worker.log.count("Stopped with 1 handlers still at work") == 1


def test_processes_whose_parent_is_killed_end(durable: DurableSite) -> None:
    with durable.worker("--processes", "2") as worker:
        wait_until(lambda: worker.log.count("runs:") == 2, "two processes")

        worker.end(signal.SIGKILL)

        wait_until(lambda: worker.log.count("Stopped; everything") == 2, "their end")


def test_each_process_serves_its_numbers_on_a_port_of_its_own(
    durable: DurableSite, tmp_path: Path
) -> None:
    port = free_port()

    with durable.worker(
        "--processes", "2", "--metrics-addr", f"127.0.0.1:{port}"
    ) as worker:
        for number in (port, port + 1):
            url = f"http://127.0.0.1:{number}/metrics"
            wait_until(lambda url=url: "jobs.done" in page(url), url)  # type: ignore[misc]

        assert worker.end() == 0
