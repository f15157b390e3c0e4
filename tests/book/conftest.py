"""The rendered site, served on this machine, and one headless Chromium for all tests."""

import http.server
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

SITE = Path(__file__).parent.parent.parent / "_build" / "html"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def site() -> str:
    """Address of the site on this machine."""
    if not (SITE / "index.html").is_file():
        pytest.exit("there is no rendered site: run make book first", returncode=1)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Browser:
    """Headless Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.exit("no Chromium found; install it, for example: apt-get install chromium", returncode=1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


class Opened:
    """A page with everything that went wrong on it."""

    def __init__(self, browser: Browser, url: str, *, scheme: str = "light", width: int = 1280):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("requestfailed", lambda r: self.errors.append(f"failed: {r.url}"))
        self.page.on("response", lambda r: self.errors.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        self.page.route("**/*", self._only_this_machine)
        self.page.set_default_timeout(60_000)  # a busy machine takes its time
        self.page.goto(url, wait_until="load")
        self.page.evaluate("window.MathJax?.startup?.promise?.then(() => true)")  # wait until it has typeset the page

    def _only_this_machine(self, route):
        if route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            route.continue_()
        else:
            self.foreign.append(route.request.url)
            route.abort()


@pytest.fixture
def visit(browser, site):
    """Open a page by its name, and close it after the test."""
    opened = []

    def visit(name: str, **options) -> Opened:
        opened.append(Opened(browser, f"{site}/{name}", **options))
        return opened[-1]

    yield visit
    for page in opened:
        page.context.close()
