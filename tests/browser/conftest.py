"""A real Chromium that reads what the project shows a person.

The browser is the system's own (Debian's package ``chromium``). No page of the project may need a network, so a
request to another host is cut off and fails the test.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from browser.visits import Open, Visit, listen

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests that start a browser are slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


# One for a module, not for all tests: as long as it lives, its event loop runs in this thread, and a test of another
# module that starts one would fail.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium. Skips where there is none, unless ``GALPACA_TEST_BROWSER=required``."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        message = f"needs a browser, one of {', '.join(_NAMES)}: apt-get install chromium"
        if os.environ.get("GALPACA_TEST_BROWSER") == "required":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root; /dev/shm is small in containers.
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """``open_page(address, width=1280, height=900, dark=False)`` shows a file or an address of this machine.

    After the test, it fails if a page requested anything of another host. Errors of the console are in ``errors``.
    """
    visits: list[Visit] = []
    contexts = []

    def open_(address: str | Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=width < 600,
            reduced_motion="reduce",
        )
        contexts.append(context)
        visit = Visit(context.new_page())
        visits.append(visit)
        listen(visit)
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        visit.page.goto(url, wait_until="load")
        return visit

    yield open_
    for context in contexts:
        context.close()
    assert [url for visit in visits for url in visit.foreign] == [], "a page requested something of another host"
