"""The process of one case: does a run whenever it is asked."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

Run = Callable[[], Mapping[str, float]]


def main(order: str) -> None:
    """Make the case, then answer one line of JSON for every line that is read."""
    tell = _claim_stdout()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        run = _make(**json.loads(order))
    except Exception as error:  # noqa: BLE001 - a peer may fail in any way
        tell(_describe(error))
        return
    tell({})
    for _ in sys.stdin:
        tell(_attempt(run))
    # Threads of some peers never end; nobody is interested in an orderly stop here.
    os._exit(0)


def _claim_stdout() -> Callable[[Mapping[str, Any]], None]:
    """Keep stdout for the answers: what a peer prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    return tell


def _make(target: str, options: Mapping[str, Any]) -> Run:
    module, _, name = target.partition(":")
    make: Callable[..., Run] = getattr(importlib.import_module(module), name)
    return make(**options)


def _attempt(run: Run) -> Mapping[str, Any]:
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - a peer may fail in any way
        return _describe(error)


def _describe(error: Exception) -> Mapping[str, str]:
    return {"error": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main(sys.argv[1])
