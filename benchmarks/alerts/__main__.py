"""Says which alerts fire under trouble, and when: ``python -m benchmarks.alerts``.

Fourteen sites run side by side for 21 minutes under one Prometheus with the rules and
thresholds that ship. Thirteen have one trouble each. The first is deployed, reloaded
and recycled, with a consumer that is renamed, and must stay quiet until one of its
handlers hangs. It prints a table. It takes 2 GB, and all processors at its start.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from .sites import Alerts, Site, prometheus

TROUBLE: Final = 240
"""When it begins, in seconds: after the sites have been seen in order."""
END: Final = 1260


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is done to a site at a moment."""

    at: float
    site: Site
    do: Callable[[], object]


def main() -> None:
    """Run all of it, and print what fired."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="gomq-alerts-") as folder, ExitStack() as running:
        home = Path(folder)
        steps = [*_deployed(home), *_troubled(home)]
        sites = list(dict.fromkeys(step.site for step in steps))
        for site in sites:
            running.callback(site.close)
            site.start()
        url = running.enter_context(prometheus(home / "prometheus", sites))
        alerts = Alerts(url)
        _play(steps, alerts)
        for site in sites:
            began = min(step.at for step in steps if step.site is site)
            _print(site.job, began if began >= TROUBLE - 1 else 0, alerts)


def _deployed(home: Path) -> list[Step]:
    site = Site("deployed", home, visits=6, max_requests=400)

    def rename() -> None:
        site.rename("new")
        site.reload()

    def recycle_no_more() -> None:
        site.max_requests = 0
        site.deploy()

    half = [
        partial(site.tell, f"tell/shop.seldom.tried?{fail}times=1")
        for fail in ("", "fail=1&")
    ]
    return [
        *(Step(60 + 5 * number, site, half[number % 2]) for number in range(16)),
        Step(200, site, site.reload),
        Step(300, site, site.deploy),
        Step(420, site, rename),
        Step(560, site, site.reload),
        Step(700, site, recycle_no_more),
        # Later than a worker lives that is recycled.
        Step(780, site, partial(site.tell, "tell/shop.lone.called?hang=1")),
    ]


def _troubled(home: Path) -> list[Step]:
    def site(job: str, **options: int) -> Site:
        return Site(job, home, **options)

    def told(site: Site, *paths: str, at: float = TROUBLE) -> list[Step]:
        return [Step(at, site, partial(site.tell, path)) for path in paths]

    killed = site("killed-again")
    hang = "tell/shop.{}?hang=1&times={}".format
    return [
        *told(site("drops", workers=1), "tell/shop.small.filled?seconds=0.2&times=80"),
        *told(site("dead-letters", workers=1), "tell/shop.doomed.sent?fail=1"),
        *told(site("loop-blocked", workers=1), "tell/shop.page.viewed?seconds=90"),
        *told(site("dispatcher-dead-1-of-3"), "break"),
        *told(site("queue-stands-still", workers=1), "block"),
        *told(site("thread-dead", workers=1), "end"),
        *told(site("hangs", workers=1), hang("lone.called", 1)),
        *told(site("hangs-1-of-3"), hang("lone.called", 1)),
        *told(site("hangs-nothing-behind", workers=1), hang("hog.fed", 1)),
        *told(site("8-of-8-hang", workers=1), hang("hog.fed", 8)),
        *told(site("8-of-8-hang-1-of-3"), hang("hog.fed", 8)),
        # What is killed holds messages, in whichever of three workers it is.
        *told(killed, *3 * ["tell/shop.lone.called?seconds=9&times=9"], at=TROUBLE - 1),
        *(Step(TROUBLE + 60 * n, killed, killed.kill_worker) for n in range(6)),
        Step(0, site("pages-mixed", shares=False), lambda: None),
    ]


def _play(steps: list[Step], alerts: Alerts) -> None:
    began = time.monotonic()
    waiting = sorted(steps, key=lambda step: step.at)
    while time.monotonic() - began < END:
        while waiting and time.monotonic() - began >= waiting[0].at:
            step = waiting.pop(0)
            try:
                step.do()
            except OSError as error:
                print(f"{step.site.job} at {step.at}: {error}", flush=True)
        alerts.look()
        time.sleep(2)


def _print(job: str, since: float, alerts: Alerts) -> None:
    print(f"\n{job}" + (f", from {since:.0f} s on" if since else ""))
    found = sorted(
        (times, text) for (of, text), times in alerts.seen.items() if of == job
    )
    for (first, last), text in found:
        after = f" (+{first - since:.0f})" if since else ""
        print(f"  {first:5.0f}{after} to {last:5.0f} s  {text}")
    if not found:
        print("  nothing fired")


if __name__ == "__main__":
    main()
