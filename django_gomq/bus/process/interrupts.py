"""Runs to its end what a signal handler must not leave half done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Lock, Thread, current_thread, main_thread

from .fork import may_start


def run_shielded(call: Callable[[], object]) -> None:
    """Run this to its end, also if a signal handler raises meanwhile; blocks so long.

    Signal handlers run on the main thread, between any two steps: on it, ``call`` runs
    on a thread of its own, and what a handler raises only ends the wait for that.
    Raises what ``call`` does, if the wait was not ended.
    """
    if current_thread() is not main_thread() or not may_start():
        call()
        return
    failures: list[BaseException] = []
    ended = Lock()
    ended.acquire()

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            failures.append(error)
        finally:
            ended.release()

    before = sys.exc_info()[1]
    try:
        Thread(target=run, name="gomq-whole", daemon=True).start()
    except (RuntimeError, MemoryError) as error:
        context = error.__context__
        if context is not None and context is not before:
            raise context from None  # a signal handler's has broken the start
        call()  # there are no threads, or the interpreter is ending and starts none
        return
    ended.acquire()
    if failures:
        raise failures[0]
