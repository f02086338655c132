"""Pages as a person sees them: in Chromium, with what the page asked for and complained of."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# It runs as root in containers, and calls nobody.
_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # A camera that shows a pattern, and the permission to use it.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


def chromium() -> str:
    """The browser; CHROMIUM names another."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    assert found, "no Chromium: launch/test.sh installs it; CHROMIUM names one that is elsewhere"
    return found


@contextlib.contextmanager
def opened(where: Path | str, *, width: int, height: int) -> Iterator[tuple[Page, list[str]]]:
    """A page in a window of that size, and everything it should not have done, as it happens.

    A page in a file asks for nothing else; one at an address may ask for whatever is below that.
    """
    url = where.as_uri() if isinstance(where, Path) else where

    def is_expected(asked: str) -> bool:
        own = asked == url if isinstance(where, Path) else asked.startswith(url)
        return own or asked.startswith(("data:", "blob:"))

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=_OPTIONS)
        page = browser.new_page(viewport={"width": width, "height": height})
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None if is_expected(request.url) else wrong.append(f"request: {request.url}")
            ),
        )
        page.goto(url)
        yield page, wrong
        browser.close()
