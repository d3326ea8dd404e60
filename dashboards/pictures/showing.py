"""Shows boards in Chromium, and takes their pictures."""

from __future__ import annotations

import mimetypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page, Route, sync_playwright
from playwright.sync_api import TimeoutError as TooLongError

SOURCES: Final = Path(__file__).with_name("page")
_SITE: Final = "http://board.invalid/"
"""Nobody's: every request is answered from files."""
_HTML: Final = """<!doctype html>
<meta charset="utf-8">
<link rel="stylesheet" href="/board.css">
<body style="margin: 0">
<div id="board"></div>
<script src="/board.js"></script>
"""
_FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
_SECONDS: Final = 120
_ICONS: Final = "public/build/img/"


class ShowingError(Exception):
    """A board could not be shown; the text says what is missing."""


@contextmanager
def opened() -> Iterator[Screen]:
    """Build the page and open it in Chromium. Raises ShowingError."""
    chromium = _find("chromium")
    _find("pngquant")
    files = built()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        try:
            yield Screen(browser.new_page(), files)
        finally:
            browser.close()


class Screen:
    """A window that shows one board after the other."""

    width: Final = 1400
    """Pixels: a laptop's, less the menu of Grafana."""

    def __init__(self, page: Page, files: Path) -> None:
        """Take an empty page, and the folder of what it loads."""
        self._page = page
        self._files = files
        self._said: list[str] = []
        page.set_default_timeout(_SECONDS * 1000)
        page.route("**/*", self._answer)
        page.on("pageerror", lambda error: self._said.append(str(error)))

    def show(self, shown: Mapping[str, Any]) -> list[str]:
        """Show a board; return what is wrong: errors, and panels without data.

        ``shown`` is what ``show`` of page/board.jsx takes.
        """
        page = self._page
        self._said.clear()
        page.set_viewport_size({"width": self.width, "height": 900})
        page.goto(_SITE)
        page.evaluate("shown => show(shown)", shown)
        # What is below the window's edge would not be drawn.
        height = page.evaluate("() => document.body.scrollHeight")
        page.set_viewport_size({"width": self.width, "height": height})
        try:
            page.wait_for_function("() => blank().length === 0", polling=500)
        except TooLongError:
            blank = page.evaluate("() => blank()")
            self._said += [f"{panel}: nothing is drawn" for panel in blank]
        page.wait_for_load_state("networkidle")
        return [*self._said, *page.evaluate("() => problems()")]

    def take(self, file: Path, height: int | None = None) -> None:
        """Write what is shown into a PNG of few colours; ``height`` cuts the rest."""
        if height is not None:
            self._page.set_viewport_size({"width": self.width, "height": height})
        self._page.screenshot(path=file)
        _run("pngquant", "--force", "--ext=.png", "--nofs", "128", str(file))

    def _answer(self, route: Route) -> None:
        path = route.request.url.removeprefix(_SITE)
        file = self._files / path
        if path.startswith(_ICONS):
            file = _packages() / "@grafana/ui/dist" / path.replace("build/", "", 1)
        if not path:
            route.fulfill(body=_HTML, content_type="text/html")
        elif file.is_file():
            kind = mimetypes.guess_type(file.name)[0]
            route.fulfill(body=file.read_bytes(), content_type=kind)
        else:
            route.fulfill(status=404)


def built() -> Path:
    """Return the folder with the built page; for the first time it takes minutes.

    It is among the system's temporary files, one for each state of the sources, and so
    are the packages. Raises ShowingError.
    """
    npm = _find("npm")
    files = sorted(SOURCES.iterdir())
    state = sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    folder = _packages().parent
    made = folder / state
    if not made.exists():
        shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
        if not (folder / "installed").exists():
            _run(npm, "install", "--ignore-scripts", "--legacy-peer-deps", into=folder)
            (folder / "installed").touch()
        building = folder / f"{state}.{os.getpid()}"
        _run(npm, "run", "build", "--", f"--outdir={building}", into=folder)
        building.rename(made)
    return made


def _packages() -> Path:
    wanted = sha256((SOURCES / "package.json").read_bytes()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"gomq-boards-{wanted}" / "node_modules"


def _find(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise ShowingError(
            f"there is no {program}; on Debian or Ubuntu: apt-get install {program}"
        )
    return path


def _run(*command: str, into: Path | None = None) -> None:
    done = subprocess.run(  # noqa: S603 - a constant, and paths
        command, cwd=into, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise ShowingError(f"{' '.join(command)} failed\n{done.stderr[-2000:]}")
