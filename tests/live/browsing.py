"""A site under gunicorn and Debian's Chromium in front of it; it judges nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Final

from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    expect,
    sync_playwright,
)

from tests.absent import absent
from tests.django_site.programs import ROOT, environment
from tests.django_site.waiting import SECONDS, wait_until
from tests.ports import free_port

HOW: Final = "to run it: apt-get install chromium"
LIVE: Final = "/gomq/live/"
ADMIN: Final = "/admin/gomq/consumer/"
_FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
)
_PEOPLE: Final = """
import django
django.setup()
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
call_command("migrate", verbosity=0)
from tests.live.clinic.settings import IS_DURABLE
if IS_DURABLE:
    call_command("gomq", "setup")
User.objects.create_superuser("anna", password="anna")
User.objects.create_user("nils", password="nils", is_staff=True)
vera = User.objects.create_user("vera", password="vera", is_staff=True)
vera.user_permissions.set(Permission.objects.filter(codename__in=[
    "view_recordedconsumer", "view_storeddeadletter"]))
"""

expect.set_options(timeout=SECONDS * 1000)


class Clinic:
    """A running site with two worker processes."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def get(self, path: str) -> str:
        """Return what a visitor without cookies gets."""
        with urllib.request.urlopen(self.url + path, timeout=SECONDS) as response:
            text: str = response.read().decode()
            return text

    @contextmanager
    def visited(self, times: int = 2, pause: float = 0.05) -> Iterator[None]:
        """Have visitors come all the while."""
        ended = Event()

        def visit() -> None:
            while not ended.wait(pause):
                with suppress(OSError):  # a worker that is ended may cut one off
                    self.get(f"/visit?times={times}")

        visitor = Thread(target=visit)
        visitor.start()
        try:
            yield
        finally:
            ended.set()
            visitor.join()


@contextmanager
def serving(folder: Path, **environ: str) -> Iterator[Clinic]:
    """Serve the clinic by two workers, with three users whose passwords are names.

    Anna may do all, Vera may look, Nils is staff and may nothing.
    """
    site = {
        "DJANGO_SETTINGS_MODULE": "tests.live.clinic.settings",
        "CLINIC_FOLDER": str(folder),
        **environ,
    }
    subprocess.run(
        [sys.executable, "-c", _PEOPLE],
        cwd=ROOT,
        env=environment(**site),
        check=True,
        timeout=SECONDS * 2,
    )
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "tests.live.clinic.wsgi"]
    command += ["--bind", f"127.0.0.1:{port}", "--no-control-socket"]
    command += ["--workers", "2", "--worker-class", "gthread", "--threads", "4"]
    log = folder / "gunicorn.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(**site), stdout=output, stderr=output
        )
    clinic = Clinic(folder, f"http://127.0.0.1:{port}")

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return bool(clinic.get("/gomq/livez"))
        except OSError:
            return False

    try:
        wait_until(answers, "the clinic")
        yield clinic
    finally:
        process.terminate()
        process.wait(SECONDS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium; skips where it is missing."""
    path = shutil.which("chromium")
    if path is None:
        absent(f"no Chromium here; {HOW}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One person's window, and what its console said."""

    def __init__(self, clinic: Clinic, context: BrowserContext) -> None:
        context.set_default_timeout(SECONDS * 1000)
        self.clinic = clinic
        self.page: Page = context.new_page()
        self.console: list[str] = []
        self.page.on("console", lambda message: self.console.append(message.text))
        self.page.on("pageerror", lambda error: self.console.append(str(error)))

    def log_in(self, name: str, path: str = LIVE) -> Page:
        """Log in, and go to a page."""
        self.page.goto(f"{self.clinic.url}/admin/login/?next={path}")
        self.page.fill("#id_username", name)
        self.page.fill("#id_password", name)
        self.page.click("[type=submit]")
        self.page.wait_for_url(f"**{path}")
        return self.page

    def go(self, path: str) -> Page:
        """Go to a page of the site."""
        self.page.goto(self.clinic.url + path)
        return self.page


def open_chain(page: Page) -> None:
    """Go from the page of messages to the tree of one that caused others."""
    page.locator("#g-event").fill("lab.requested")
    page.locator("#g-consumer").select_option("lab.analysis")
    page.get_by_role("button", name="Show", exact=True).click()
    page.locator(".g-messages tbody .g-id a").last.click()
    page.wait_for_url("**/tree/?id=*")

    def has_ended() -> bool:
        page.reload()
        text = page.locator(".g-tree").first.inner_text()
        return "billing.invoice.paid" in text and "waits" not in text

    wait_until(has_ended, "the end of the chain")


Open = Callable[..., Visit]
"""Opens a window before the clinic, with options of Chromium's contexts."""
