"""A real browser for tests of pages: Chromium without a window, in which nothing may go wrong unnoticed."""

import shutil
from contextlib import contextmanager

import pytest

ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def chromium():
    """The browser; the test is skipped where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: python -m pip install -e '.[browser]'"
    )
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs a browser: Debian's package chromium, or Chrome")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser, path, width=1400, height=900, scheme="light", wait_for="html[data-ready]", **options):
    """The page in a file; afterwards, the test fails if it asked the network for anything or logged an error."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    page.set_default_timeout(300_000)
    problems = []
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if not_local(request.url, path) else None)
    try:
        page.goto(path.as_uri())
        page.wait_for_selector(wait_for)
        yield page
    finally:
        page.close()
    assert not problems


def not_local(url, path):
    return url != path.as_uri() and not url.startswith(("data:", "blob:", path.as_uri() + "#"))
