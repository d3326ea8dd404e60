from __future__ import annotations

import logging
import math
import os
import re
import resource
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from django_gomq.bus.counts import Histogram, HistogramState
from django_gomq.observability.metrics import check_directory
from django_gomq.observability.metrics.collector import IncompleteError
from django_gomq.observability.metrics.multiprocess import collector as sharing
from django_gomq.observability.metrics.multiprocess.files import (
    NumberFile,
    Torn,
    look,
    read_numbers,
    read_used,
)
from django_gomq.observability.metrics.multiprocess.reader import Merger
from django_gomq.observability.metrics.multiprocess.slots import hold, remove_live
from django_gomq.observability.metrics.multiprocess.writer import SlotWriter

from .companions import Companion, library_page, run_to_the_end
from .live import WAIT_SECONDS

BOUNDS = (0.1, 1.0)


@pytest.fixture
def companion(tmp_path: Path) -> Iterator[Companion]:
    with closing(Companion(tmp_path)) as made:
        yield made


keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(keys, st.floats(allow_nan=False), max_size=40))
def test_the_client_library_reads_what_we_write(numbers: dict[str, float]) -> None:
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "counter_gomq-0.db"))
        with closing(NumberFile(path)) as cells:
            for key in numbers:
                cells.append(key, 1.5, 7.0)
            for key, number in numbers.items():
                cells[cells.positions[key]] = number

        read = MmapedDict.read_all_values_from_file(path)
        theirs = {key: number for key, number, _, _ in read}
        with closing(NumberFile(path)) as again:
            ours = {key: again[place] for key, place in again.positions.items()}

    assert theirs == ours == numbers


def test_we_read_what_the_client_library_writes(tmp_path: Path) -> None:
    path = str(tmp_path / "counter_1.db")
    theirs = MmapedDict(path)
    for number in range(2000):
        key = mmap_key("a", "a_total", ["é"], [str(number)], "help")
        theirs.write_value(key, number, 0.0)
    theirs.close()

    assert [number for _, number in read_numbers(path)] == list(range(2000))


events = st.sampled_from(["a.b", "c.d"])
seconds = st.sampled_from([0.05, 0.5, 5.0])
# What happens in one of three slots: something is counted, or its process is replaced.
steps = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.none(), st.tuples(events, seconds))),
    max_size=60,
)


class _Slot:
    """One slot and the process in it, of which only the counts matter."""

    def __init__(self, folder: str, number: int) -> None:
        self.place = folder, number
        self.begin()

    def begin(self) -> None:
        remove_live(*self.place)
        self.writer = SlotWriter(*self.place)
        self.counts: Counter[str] = Counter()
        self.durations: list[float] = []

    def count(self, event: str, duration: float) -> None:
        self.counts[event] += 1
        self.durations.append(duration)
        histogram = Histogram(BOUNDS)
        histogram.observe_all(list(self.durations))
        self.writer.published.add_metric(["default", event], self.counts[event])
        self.writer.channel_depth.add_metric(["default", "one"], len(self.durations))
        where = ["default", "one"]
        self.writer.duration.add_state(where, histogram.state(), BOUNDS)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_the_sum_of_the_parts_is_the_whole(
    happened: list[tuple[int, tuple[str, float] | None]],
) -> None:
    counted: Counter[str] = Counter()
    durations: list[float] = []
    merger = Merger()
    with TemporaryDirectory() as folder:
        slots = [_Slot(folder, number) for number in range(3)]
        for number, seen in happened:
            if seen is None:
                slots[number].writer.close()
                slots[number].begin()
            else:
                slots[number].count(*seen)
                counted[seen[0]] += 1
                durations.append(seen[1])
            merger.merge(look(folder).ours)  # knows what was there before
        families = merger.merge(look(folder).ours)
        library = library_page(Path(folder)).all
        alive = sum(len(one.durations) for one in slots)
        for one in slots:
            one.writer.close()

    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.all()
        for sample in family.samples
    }
    where = "default", "one"
    for event, total in counted.items():
        assert samples["gomq_messages_published_total", "default", event] == total
    if durations:
        name = "gomq_handler_duration_seconds_bucket"
        for bound in (*BOUNDS, math.inf):
            up_to = sum(one <= bound for one in durations)
            assert samples[name, *where, floatToGoString(bound)] == up_to
        total_time = samples["gomq_handler_duration_seconds_sum", *where]
        assert total_time == pytest.approx(sum(durations))
    if alive:
        assert samples["gomq_channel_depth", *where] == alive
    assert sorted(samples.values()) == pytest.approx(sorted(library.values()))


def test_series_of_another_version_are_left_out(tmp_path: Path) -> None:
    with closing(NumberFile(str(tmp_path / "counter_gomq-0.db"))) as cells:
        name = "gomq_messages_published"
        right = ["broker", "event"], ["default", "a.b"]
        for key in (
            mmap_key(name, f"{name}_total", *right, "an older help text"),
            mmap_key(name, f"{name}_total", *right, "Messages that a broker took."),
            mmap_key(name, f"{name}_total", ["broker"], ["default"], "other labels"),
            mmap_key("gomq_gone", "gomq_gone_total", *right, "no metric of today"),
            "no JSON",
        ):
            cells.append(key, 2.0, 1.0)

    families = Merger().merge(look(str(tmp_path)).ours).all()

    samples = [one for family in families for one in family.samples]
    assert [one.value for one in samples] == [4.0]


def test_the_latest_success_is_that_of_any_process_that_ever_was(
    tmp_path: Path,
) -> None:
    for seconds in (50.0, 100.0, 70.0):  # the clock was set back
        with closing(SlotWriter(str(tmp_path), 0)) as writer:
            writer.last_success.add_metric(["default", "one"], seconds)

    assert library_page(tmp_path).values("last_success_timestamp_seconds") == [100]


def test_a_file_that_took_the_place_of_another_is_read_anew(tmp_path: Path) -> None:
    merger = Merger()
    for events in (["a", "b"], ["c", "d", "e"]):
        with closing(SlotWriter(str(tmp_path), 0)) as writer:
            for number, event in enumerate(events):
                writer.published.add_metric(["default", event], number + 1)
        families = merger.merge(look(str(tmp_path)).ours)
        for one in tmp_path.iterdir():
            one.unlink()

    [published] = [one for one in families.all() if one.samples]
    assert {one.labels["event"]: one.value for one in published.samples} == {
        "c": 1,
        "d": 2,
        "e": 3,
    }


def test_buckets_of_before_and_after_a_change_of_settings_add_up(
    tmp_path: Path,
) -> None:
    for slot, bounds in enumerate(((1.0,), (0.5, 10.0))):
        counts = (1,) * (len(bounds) + 1)
        with closing(SlotWriter(str(tmp_path), slot)) as writer:
            state = HistogramState(bounds, counts, 1.0, {})
            writer.wait.add_state(["default", "one"], state, bounds)

    families = Merger().merge(look(str(tmp_path)).ours)

    [wait] = [one for one in families.all() if one.samples]
    found = {one.labels["le"]: one.value for one in wait.samples if "le" in one.labels}
    assert found == {"0.5": 1, "1.0": 2, "10.0": 3, "+Inf": 5}
    library = library_page(tmp_path)
    assert library.values("message_wait_seconds_bucket") == [1, 2, 3, 5]


def test_room_in_a_file_is_on_the_disk_before_it_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "counter_gomq-0.db"
    with closing(NumberFile(str(path))) as cells:
        for number in range(1000):
            cells.append(f"{number}" * 40, 1.0, 1.0)

    told = path.stat()
    assert told.st_blocks * 512 >= told.st_size > 1 << 16


@pytest.mark.parametrize("kind", ["counter", "gauge_livesum", "histogram"])
@pytest.mark.parametrize("content", [b"", b"\0" * 65536, b"\x08\0\0\0\0\0\0\0"])
def test_a_file_that_holds_nothing_yet_is_no_trouble(
    companion: Companion, tmp_path: Path, kind: str, content: bytes
) -> None:
    (tmp_path / f"{kind}_gomq-7.db").write_bytes(content)
    companion.publish(2)

    page = companion.page()

    assert page.sum("messages_published_total") == 2
    assert page.sum("telemetry_errors_total") == 0


def test_a_page_without_the_numbers_of_a_torn_file_is_none_and_names_the_file(
    companion: Companion, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torn = tmp_path / "counter_gomq-7.db"
    torn.write_bytes(b"\xff\0\0\0\0\0\0\0" + b"x" * 300)
    companion.publish(2)

    with caplog.at_level(logging.ERROR, "gomq.metrics"):
        for _ in range(2):
            with pytest.raises(IncompleteError, match=re.escape(str(torn))):
                companion.page()
    torn.unlink()
    page = companion.page()

    assert page.sum("messages_published_total") == 2
    assert page.sum("telemetry_errors_total", kind="SharedMetrics") == 2
    [record] = caplog.records
    assert record.exc_info
    assert str(torn) in str(record.exc_info[1])


def test_a_page_without_what_others_share_is_none(
    companion: Companion, tmp_path: Path
) -> None:
    torn = tmp_path / "counter_4711.db"
    torn.write_bytes(b"\xff\0\0\0\0\0\0\0" + b"x" * 300)
    companion.publish(2)

    with pytest.raises(IncompleteError, match="what others share"):
        companion.page()
    torn.unlink()

    assert companion.page().sum("messages_published_total") == 2


@pytest.mark.parametrize("kind", ["counter", "histogram", "gauge_livesum"])
@pytest.mark.parametrize("harm", ["cut", "removed"])
def test_a_process_whose_file_was_harmed_makes_it_anew_and_counts_nothing_twice(
    companion: Companion, tmp_path: Path, kind: str, harm: str
) -> None:
    companion.publish(5)
    companion.sharing.flush()
    file = tmp_path / f"{kind}_gomq-0.db"
    if harm == "cut":
        os.truncate(file, 100)
    else:
        file.unlink()
    companion.publish(2)

    page = companion.page()

    assert page.sum("messages_published_total") == 7
    assert page.sum("handler_duration_seconds_count", consumer="counts") == 7
    assert page.sum("processes") == 1


def test_a_scrape_waits_for_no_lock_of_those_who_write_unless_for_long(
    companion: Companion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr(sharing, "STALE_SECONDS", 60 * WAIT_SECONDS)
    companion.publish(5)
    companion.sharing.flush()
    writes, may_go_on = threading.Event(), threading.Event()

    def write_for_long(out: object, labels: object) -> None:
        writes.set()
        assert may_go_on.wait(WAIT_SECONDS)

    with monkeypatch.context() as slow:
        slow.setattr(companion.collector, "read", write_for_long)
        writer = threading.Thread(target=companion.sharing.flush)
        writer.start()
        assert writes.wait(WAIT_SECONDS)

        page = companion.page()
        assert companion.sharing.flush(), "another thread is at it"
        slow.setattr(sharing, "STALE_SECONDS", 0.0)
        with pytest.raises(IncompleteError, match="another thread"):
            companion.page()

        may_go_on.set()
        writer.join(WAIT_SECONDS)
    assert page.sum("messages_published_total") == 5
    assert page.sum("telemetry_errors_total", kind="SharedMetrics") == 0


def test_a_process_that_never_wrote_shows_no_page_of_the_others(
    companion: Companion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "LOCK_SECONDS", 0.01)
    here = companion.sharing._here()

    with here._lock, pytest.raises(IncompleteError, match="another thread"):
        companion.page()


def test_a_slot_with_a_torn_file_is_used_all_the_same(
    companion: Companion, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "counter_gomq-0.db").write_bytes(b"\xff\0\0\0\0\0\0\0" + b"x" * 300)
    companion.publish(2)

    page = companion.page()

    assert page.sum("messages_published_total") == 2
    assert "is made anew" in caplog.text


def test_scrapes_while_processes_come_and_go_never_fail(
    companion: Companion, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    companion.publish(3)
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            slot = hold(str(tmp_path), 5)
            if slot is None:
                continue  # somebody looks whether we live
            writer = SlotWriter(str(tmp_path), 5)
            for number in range(300):
                writer.published.add_metric(["default", f"e{number}"], number)
                writer.channel_depth.add_metric(["default", f"c{number}"], number)
            writer.close()
            for one in tmp_path.glob("*_gomq-5.db"):
                one.unlink()
            slot.release()

    others = threading.Thread(target=come_and_go)
    others.start()
    try:
        pages = [companion.page() for _ in range(30)]
    finally:
        done.set()
        others.join()

    saved = {one.sum("messages_published_total", event="record.saved") for one in pages}
    assert saved == {3}
    assert {int(one.sum("telemetry_errors_total")) for one in pages} == {0}
    assert caplog.records == []


@pytest.mark.parametrize("name", ["gone", "file"])
def test_without_the_directory_there_is_no_page(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with closing(Companion(tmp_path / name)) as alone:
        alone.publish(3)
        assert not alone.sharing.flush()

        for _ in range(2):
            with pytest.raises(IncompleteError, match=name):
                alone.page()

        assert alone.collector.failures.counts["SharedMetrics"] == 3
    [record] = caplog.records
    assert "PROMETHEUS_MULTIPROC_DIR" in record.getMessage()


def test_without_descriptors_there_is_no_page_for_as_long(
    companion: Companion, tmp_path: Path
) -> None:
    count_in_another_process(tmp_path)
    companion.publish(2)
    companion.sharing.flush()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(IncompleteError, match="Too many open files"):
            companion.page()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert companion.page().sum("messages_published_total") == 22


def count_in_another_process(folder: Path) -> None:
    def count() -> None:
        one = Companion(folder)
        one.publish(20)
        one.sharing.flush()
        one.close()

    run_to_the_end(count)


def test_a_full_disk_ends_no_process_and_is_counted(tmp_path: Path) -> None:
    def run() -> None:
        # As a full disk: no file may become longer than what the first series take.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        one = Companion(tmp_path)
        for number in range(30):
            one.broker.count_rolled_back(f"event.number_{number}")
            one.broker.consume(f"a.n{number}", print, name=f"consumer.{number}")
        assert not one.sharing.flush()
        with pytest.raises(IncompleteError, match="File too large"):
            one.page()
        assert one.collector.failures.counts["SharedMetrics"] == 2

    run_to_the_end(run)


def test_a_file_that_says_more_than_it_has_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "counter_gomq-0.db"
    with closing(NumberFile(str(path))) as cells:
        cells.append("key", 1.0, 1.0)
    path.write_bytes(path.read_bytes()[:20])

    with pytest.raises(Torn):
        read_used(str(path))
    with pytest.raises(Torn):
        NumberFile(str(path))


def test_a_directory_that_will_do_has_no_problem(tmp_path: Path) -> None:
    assert check_directory(str(tmp_path)) is None


def test_a_directory_that_will_not_do_has_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = check_directory(str(tmp_path / "gone"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may all
    closed = check_directory(str(tmp_path))

    assert missing is not None
    assert "is no directory" in missing
    assert closed is not None
    assert "read and written" in closed
