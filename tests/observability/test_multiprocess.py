from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Semaphore

import pytest
from prometheus_client import CollectorRegistry

from django_gomq.observability.metrics import install, render, uninstall
from django_gomq.observability.metrics.multiprocess.files import NumberFile
from django_gomq.observability.metrics.multiprocess.slots import claim
from django_gomq.observability.metrics.registration import end, flush

from .companions import (
    Companion,
    fine_page_of,
    kill,
    library_page,
    living,
    page_of,
    run_to_the_end,
)
from .live import WAIT_SECONDS, publish, wait_quiet, wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: use POSIX")

PROCESSED = "messages_processed_total"


@pytest.fixture
def companion(tmp_path: Path) -> Iterator[Companion]:
    with closing(Companion(tmp_path)) as made:
        yield made


def files_of(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def count(folder: Path, messages: int, *, waiting: int = 0) -> None:
    """Be a process that handles messages, and has some waiting for a consumer."""
    one = Companion(folder)
    one.publish(messages)
    if waiting:
        one.hold(waiting)
    assert one.sharing.flush()


def count_and_end(folder: Path, messages: int) -> None:
    one = Companion(folder)
    one.publish(messages)
    one.sharing.flush()
    one.close()


def test_the_numbers_of_all_processes_add_up(
    tmp_path: Path, companion: Companion
) -> None:
    companion.publish(1)
    with living(lambda: count(tmp_path, 20)), living(lambda: count(tmp_path, 300)):
        page = companion.page()

    assert page.sum("processes") == 3
    assert page.sum("messages_published_total") == 321
    assert page.sum(PROCESSED, consumer="counts", outcome="success") == 321
    assert page.sum("handler_duration_seconds_count", consumer="counts") == 321
    assert page.sum("message_wait_seconds_bucket", consumer="paused", le="+Inf") == 321
    assert page.sum("channel_capacity", consumer="counts") == 3000
    assert page.values("dispatcher_up") == [1]
    assert page.values("consumer_info", consumer="counts") == [1]


def hang(folder: Path, *, waiting: int) -> None:
    """Be a process whose threads hang: one of them, or both where many wait."""
    one, entered = Companion(folder), Semaphore(0)

    def never_end(message: object) -> None:
        entered.release()
        Event().wait()

    one.broker.consume(
        "hung.up",
        never_end,
        name="hangs",
        concurrency=min(waiting, 2),
        capacity=2,
        overflow="backpressure",
    )
    publish(one.broker, "hung.up", waiting)
    for _ in range(min(waiting, 2)):
        assert entered.acquire(timeout=WAIT_SECONDS)
    queue = "hung.up"
    wait_until(lambda: one.broker.stats().queues[queue].depth == max(0, waiting - 2))
    assert one.sharing.flush()


def test_what_stands_still_in_one_process_shows_as_it_is(
    tmp_path: Path, companion: Companion
) -> None:
    companion.publish(100)
    with (
        living(lambda: hang(tmp_path, waiting=5)) as child,
        living(lambda: hang(tmp_path, waiting=1)),
    ):
        page = companion.page()
        kill(child)
        after = companion.page()

    assert page.sum("threads") == 6
    assert page.values("threads_busy_ratio") == [1]
    assert page.values("channel_fill_ratio", consumer="hangs") == [1]
    assert page.values("channel_fill_ratio", consumer="counts") == [0]
    [age] = page.values("queue_oldest_age_seconds", event="hung.up")
    [running] = page.values("handler_running_seconds", consumer="hangs")
    assert age > 0
    assert running > 0
    assert after.values("threads_busy_ratio") == [0.5]
    assert after.values("channel_fill_ratio", consumer="hangs") == [0.5]
    assert after.values("queue_oldest_age_seconds", event="hung.up") == [0]


def test_any_endpoint_of_the_client_library_shows_the_same(
    tmp_path: Path, companion: Companion
) -> None:
    companion.publish(7)
    with living(lambda: count(tmp_path, 20, waiting=3)):
        ours, theirs = companion.page(), library_page(tmp_path)

    assert len(ours.all) > 80
    assert ours.all == theirs.all


def test_the_fine_buckets_of_all_processes_add_up(
    tmp_path: Path, companion: Companion
) -> None:
    companion.publish(1)
    run_to_the_end(lambda: count_and_end(tmp_path, 20))
    with living(lambda: count(tmp_path, 300)):
        fine = fine_page_of(companion.sharing)

    name = "handler_duration_seconds"
    assert len(fine.values(f"{name}_bucket", consumer="counts")) == 49
    assert fine.sum(f"{name}_bucket", consumer="counts", le="+Inf") == 321
    assert fine.sum("messages_published_total") == 321
    assert len(companion.page().values(f"{name}_bucket", consumer="counts")) == 15


def test_fine_buckets_go_with_the_files_that_a_server_removes_at_its_start(
    tmp_path: Path, companion: Companion
) -> None:
    run_to_the_end(lambda: count_and_end(tmp_path, 20))
    for file in tmp_path.glob("*.db"):
        file.unlink()
    companion.publish(3)

    fine = fine_page_of(companion.sharing)

    name = "handler_duration_seconds_bucket"
    assert fine.sum(name, consumer="counts", le="+Inf") == 3


def test_a_killed_process_leaves_its_counts_and_no_depth(
    tmp_path: Path, companion: Companion, caplog: pytest.LogCaptureFixture
) -> None:
    with living(lambda: count(tmp_path, 20, waiting=5)) as child:
        before = companion.page()
        kill(child)
        with caplog.at_level(logging.WARNING, "gomq.metrics"):
            after, library, again = (
                companion.page(),
                library_page(tmp_path),
                companion.page(),
            )

    assert before.sum("channel_depth", consumer="paused") == 5
    for page in (after, library, again):
        assert page.sum("channel_depth", consumer="paused") == 0
        assert page.sum("processes") == 1
        assert page.sum("messages_published_total") == 25
        assert page.sum("last_success_timestamp_seconds", consumer="counts") > 0
    [record] = caplog.records
    assert "about 5 messages" in record.getMessage()
    assert "paused: about 5" in record.getMessage()


def test_who_takes_the_slot_of_a_killed_process_says_what_it_left(
    tmp_path: Path, companion: Companion, caplog: pytest.LogCaptureFixture
) -> None:
    run_to_the_end(lambda: count(tmp_path, 20, waiting=5))
    with caplog.at_level(logging.WARNING, "gomq.metrics"):
        companion.sharing.flush()

    page = library_page(tmp_path)
    assert page.sum("channel_depth", consumer="paused") == 0
    assert page.sum("messages_published_total") == 25
    [record] = caplog.records
    assert "paused: about 5" in record.getMessage()


def test_processes_that_ended_without_a_stop_are_counted_once(
    tmp_path: Path, companion: Companion
) -> None:
    companion.publish(1)
    assert companion.page().sum("processes_killed_total") == 0

    run_to_the_end(lambda: count_and_end(tmp_path, 20))
    in_order = companion.page()
    with living(lambda: count(tmp_path, 20)), living(lambda: count(tmp_path, 20)):
        pass  # killed with what they hold, or with nothing
    companion.page()
    with living(lambda: count(tmp_path, 20)):  # takes a slot that one of them had
        both = companion.page()

    assert in_order.sum("processes_killed_total") == 0
    assert both.sum("processes_killed_total") == 2
    assert library_page(tmp_path).sum("processes_killed_total") == 2


def test_who_finds_nobody_else_counts_who_had_its_slot(tmp_path: Path) -> None:
    run_to_the_end(lambda: count(tmp_path, 20))

    with closing(Companion(tmp_path)) as next_one:
        next_one.publish(1)
        assert next_one.page().sum("processes_killed_total") == 1


def test_a_process_that_ends_in_order_leaves_its_counts_and_no_warning(
    tmp_path: Path, companion: Companion, caplog: pytest.LogCaptureFixture
) -> None:
    run_to_the_end(lambda: count_and_end(tmp_path, 20))
    left = files_of(tmp_path)

    page = companion.page()

    assert not any("live" in name for name in left)
    assert page.sum("processes") == 1
    assert page.sum("messages_published_total") == 20
    assert caplog.records == []


def test_what_is_dropped_at_the_stop_is_in_the_last_numbers(
    tmp_path: Path, companion: Companion
) -> None:
    companion.hold(5)
    companion.sharing.flush()

    companion.close()

    page = library_page(tmp_path)
    dropped = page.sum("messages_dropped_total", consumer="paused", reason="shutdown")
    assert dropped == 5
    assert page.sum("messages_published_total") == 5


def test_the_next_process_goes_on_where_a_dead_one_ended(
    tmp_path: Path, companion: Companion
) -> None:
    run_to_the_end(lambda: count(tmp_path, 20))
    run_to_the_end(lambda: count_and_end(tmp_path, 300))
    companion.publish(4000)

    companion.sharing.flush()

    assert library_page(tmp_path).sum("messages_published_total") == 4320
    assert {name for name in files_of(tmp_path) if name.endswith(".lock")} == {
        "gomq_0.lock"
    }


@pytest.mark.parametrize("processes", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_many_processes_leave_the_files_of_one(
    tmp_path: Path, companion: Companion, processes: int
) -> None:
    def take_part(number: int) -> None:
        companion.sharing.flush()
        if number % 2:
            companion.sharing.end()

    for number in range(processes):
        with living(lambda: take_part(number)):  # noqa: B023 - run at once
            pass  # killed, in which a measured child has nothing more to write

    assert len(files_of(tmp_path)) <= 8


def test_a_forked_child_counts_from_zero_in_a_slot_of_its_own(
    tmp_path: Path, companion: Companion
) -> None:
    companion.publish(10)
    companion.sharing.flush()

    def count_too() -> None:
        companion.worker = type(companion.worker)(threads=2)  # as a site makes one
        companion.publish(3)
        assert companion.sharing.flush()

    with living(count_too):
        during = companion.page()
    companion.publish(1)
    after = companion.page()

    assert during.sum("processes") == 2
    assert during.sum("messages_published_total") == 13
    assert after.sum("processes") == 1
    assert after.sum("messages_published_total") == 14


def test_a_forked_child_does_not_count_what_its_parent_failed_at(
    tmp_path: Path, companion: Companion
) -> None:
    companion.collector.failures.note("SharedMetrics", "A test says so")
    companion.sharing.flush()

    with living(companion.sharing.flush):
        page = companion.page()

    assert page.sum("processes") == 2
    assert page.sum("telemetry_errors_total", kind="SharedMetrics") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_forked_child_keeps_no_file_of_its_parent_open(
    tmp_path: Path, companion: Companion
) -> None:
    companion.publish(10)
    companion.sharing.flush()

    def flush_too() -> None:
        assert companion.sharing.flush()
        links = [os.path.realpath(one) for one in Path("/proc/self/fd").iterdir()]
        assert [one for one in links if re.search(r"gomq[-_]0", one)] == []
        assert [one for one in links if re.search(r"gomq[-_]1", one)]

    run_to_the_end(flush_too)


def test_a_process_that_ends_twice_counts_once(
    tmp_path: Path, companion: Companion
) -> None:
    companion.publish(10)
    companion.sharing.flush()

    companion.close()
    companion.sharing.end()
    page = companion.page()
    companion.sharing.end()

    assert page.sum("messages_published_total") == 10
    assert library_page(tmp_path).sum("messages_published_total") == 10
    assert not any("live" in name for name in files_of(tmp_path))


def test_what_is_refused_after_the_end_is_told_at_the_next_end(
    tmp_path: Path, companion: Companion
) -> None:
    companion.publish(10)
    companion.close()
    companion.broker.count_rolled_back("record.saved")

    companion.sharing.end()

    page = library_page(tmp_path)
    assert page.sum("messages_published_total") == 10
    assert page.sum("messages_rolled_back_total") == 1


def test_a_process_that_counted_nothing_takes_no_slot(
    tmp_path: Path, companion: Companion
) -> None:
    companion.sharing.end()
    companion.broker.stats()
    companion.sharing.end()

    assert files_of(tmp_path) == set()


def test_numbers_come_back_after_the_directory_was_emptied(
    tmp_path: Path, companion: Companion
) -> None:
    companion.publish(10)
    companion.sharing.flush()
    for one in tmp_path.iterdir():
        one.unlink()
    companion.publish(5)

    assert companion.page().sum("messages_published_total") == 15
    assert library_page(tmp_path).sum("messages_published_total") == 15


def test_a_lock_that_was_removed_is_taken_again_and_nothing_counts_twice(
    tmp_path: Path, companion: Companion, caplog: pytest.LogCaptureFixture
) -> None:
    companion.publish(10)
    companion.hold(5)
    companion.sharing.flush()
    (tmp_path / "gomq_0.lock").unlink()

    page = companion.page()

    assert page.sum("messages_published_total") == 15
    assert page.sum("channel_depth", consumer="paused") == 5
    assert caplog.records == []
    run_to_the_end(lambda: check_first_free_slot(tmp_path, 1))


def check_first_free_slot(folder: Path, number: int) -> None:
    assert claim(str(folder)).number == number


def test_a_page_has_what_others_share_in_the_directory(
    tmp_path: Path, companion: Companion
) -> None:
    program = (
        "from prometheus_client import Counter; Counter('of_the_project', 'x').inc(3)"
    )
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], env=environ, check=True)
    registry = CollectorRegistry()
    registry.register(companion.sharing)

    page = render("", registry=registry)[0].decode()

    assert "of_the_project_total 6.0" in page
    assert "gomq_processes 1.0" in page


def test_where_processes_share_the_registry_has_none_of_it(
    tmp_path: Path, companion: Companion
) -> None:
    registry = CollectorRegistry()
    brokers = [companion.broker]
    install(lambda: brokers, registry=registry, directory=str(tmp_path))
    companion.publish(2)

    flush(registry)
    shown, page = registry.collect(), render("", registry=registry)[0]
    end(registry)
    uninstall(registry)

    assert list(shown) == []
    assert b"gomq_processes 1.0" in page
    assert (
        b'gomq_messages_published_total{broker="default",event="record.saved"} 2.0'
        in (page)
    )
    assert library_page(tmp_path).sum("messages_published_total") == 2
    assert render("", registry=registry)[0] == b""


def test_another_configuration_leaves_the_slot_of_the_first(
    tmp_path: Path, companion: Companion
) -> None:
    registry = CollectorRegistry()
    install(lambda: [companion.broker], registry=registry, directory=str(tmp_path))
    companion.publish(2)
    flush(registry)

    later = Companion(tmp_path)
    install(lambda: [later.broker], registry=registry, directory=str(tmp_path))
    publish(later.broker, "record.saved", 3)
    wait_quiet(later.broker)
    flush(registry)
    uninstall(registry)

    assert library_page(tmp_path).sum("messages_published_total") == 5
    assert not any("live" in name for name in files_of(tmp_path))


def test_an_idle_process_writes_nothing(
    companion: Companion, monkeypatch: pytest.MonkeyPatch
) -> None:
    companion.publish(10)
    companion.sharing.flush()
    wait_until(lambda: not companion.worker.busy)
    companion.sharing.flush()
    written: list[float] = []
    monkeypatch.setattr(
        NumberFile, "__setitem__", lambda *told: written.append(told[2])
    )

    companion.sharing.flush()
    idle = len(written)
    companion.publish(1)
    companion.sharing.flush()

    assert (idle, len(written) > 5) == (0, True)


def test_the_law_holds_for_the_sum(tmp_path: Path, companion: Companion) -> None:
    companion.hold(5)
    with living(lambda: count(tmp_path, 20, waiting=3)):
        page = page_of(companion.sharing)

    for consumer in ("counts", "paused"):
        held = ("channel_depth", "messages_scheduled", "messages_in_flight")
        accounted = sum(page.sum(name, consumer=consumer) for name in held)
        accounted += page.sum(PROCESSED, consumer=consumer, outcome="success")
        accounted += page.sum("messages_dropped_total", consumer=consumer)
        assert accounted == 28
