"""blinker: receivers run in the caller, one after another."""

from __future__ import annotations

from collections.abc import Callable

from blinker import Signal

from benchmarks.peers.driving import Load, Metrics, drive
from benchmarks.sink import Sink


def send(**load: int) -> Callable[[], Metrics]:
    """Signal.send()."""
    asked = Load(**load)
    sink = Sink()
    signal = Signal()
    for _ in range(asked.consumers):
        signal.connect(_make_receiver(sink), weak=False)
    return lambda: drive(lambda data: signal.send(None, **data), sink, asked)


def _make_receiver(sink: Sink) -> Callable[..., None]:
    def receive(sender: object, total: object, **others: object) -> None:
        sink.take(total)

    return receive
