"""Checks that every page of experiments/pages must pass, in Debian's Chromium."""

import contextlib
import shutil
from pathlib import Path

import pytest

# The network is closed while tests run, so everything that a browser sends by itself is switched off.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def chromium():
    """A headless browser; skips the test if none is installed."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Debian's chromium is not installed")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser, path: Path, width: int = 1200):
    """Opens a file from disk; fails at the end if the page requested anything or logged an error."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    yield page
    elsewhere = [url for url in requests if url != path.as_uri() and not url.startswith("data:")]
    assert not elsewhere, f"{path.name} asks for {elsewhere}"
    assert not complaints, f"{path.name}: {complaints}"
    page.close()


def column(page, table: int, place: int) -> list[str]:
    """The texts of a table's column, in page order."""
    return page.evaluate(
        "([t, c]) => [...document.querySelectorAll('table')[t].tBodies[0].rows].map(r => r.cells[c].textContent)",
        [table, place],
    )


def unfold(page):
    """Opens every folded part."""
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")


def check_fits(browser, path: Path, width: int):
    """Nothing scrolls sideways on a screen of this width in pixels, neither the page nor the box of a table."""
    with opened(browser, path, width) as page:
        unfold(page)
        wide = "[...document.querySelectorAll('html, .wide')].filter(e => e.scrollWidth > e.clientWidth)"
        assert page.evaluate(f"{wide}.map(e => e.textContent.slice(0, 80))") == []


def check_page(browser, path: Path):
    """Opens from disk, requests nothing, logs no error, shows its pictures, sorts its tables and fits a phone."""
    with opened(browser, path) as page:
        unfold(page)
        for image in page.query_selector_all("img"):
            assert image.evaluate("i => i.complete && i.naturalWidth > 0")
            assert image.is_visible()
        for number, table in enumerate(page.query_selector_all("table")):
            rows = sorted(column(page, number, 0))
            for press in (lambda button: button.click(), lambda button: button.press("Enter")):
                press(table.query_selector("th button"))
                assert sorted(column(page, number, 0)) == rows, "sorting loses no row"
            assert table.query_selector("th").get_attribute("aria-sort") == "descending"
    with opened(browser, path, width=400) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, "it scrolls sideways"
        assert page.evaluate("parseFloat(getComputedStyle(document.querySelector('p')).fontSize)") >= 14
