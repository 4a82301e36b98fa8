"""Does the console work in a browser: every page clicked through, on a desk and on a phone, in light and in dark?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlalchemy import Engine, Row

from tests.worker.bench import Scripted, Street
from tests.worker.builders import LOST, START, everything, payment, sql, the_case, until
from worker import replay
from worker.clock import set_clock
from worker.embedded import Servers

REPO = Path(__file__).parents[2]
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
TOKEN = "canary" * 6
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
CHOSEN_PAGES = ("Overview", "Cases", "Failed", "Policy", "Notices", "Report", "Churn")


@pytest.fixture(scope="module")  # while it is open, no other test of this thread can run a loop of its own
def chromium() -> Iterator[Browser]:
    """Give a browser without a window."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("there is no program named chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def web(running: Servers, folder: Path, **environment: str) -> Iterator[str]:
    """Run the real `dunning web` on a free port over the tests' servers; gives its address."""
    port = folder / "web.port"
    places = {"DUNNING_DATABASE_URL": running.database_url, "DUNNING_BROKER_URL": running.broker_url}
    where = {"PYTHONPATH": str(REPO), "DUNNING_CLOCK_FILE": str(folder / "clock"), "DUNNING_HOME": str(folder)}
    command = [sys.executable, "-m", "worker.cli", "web", "--port=0", f"--port-file={port}"]
    with (folder / "web.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **places, **where, **environment}, stderr=log)
        try:
            until(lambda: port.exists() or process.poll() is not None, 60)
            yield f"http://127.0.0.1:{port.read_text('ascii')}"
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def town(engine: Engine) -> Iterator[Engine]:
    """Give a database with four cases that came by the real path, and something that has failed."""
    street = Street()
    funds = payment().decline
    failed = [payment(1), payment(2), payment(3, currency="eur", decline=LOST), payment(4, amount_minor=98000)]
    bench = street.open(engine, Scripted(failed, declines=[funds, funds, funds]))
    bench.hear(START)
    bench.work(START)
    bench.go_on(1)
    bench.run(2)
    replay.note_failure(engine, "dunning.work", 1, KeyError("unexpected"))
    unread = "UPDATE events SET handled_at = NULL, tries = 5, error = 'UnknownShape: an invoice' WHERE id = :id"
    sql(engine, unread, id=sql(engine, "SELECT id FROM events ORDER BY id LIMIT 1")[0].id)
    yield engine
    street.close()


def still_open(engine: Engine) -> Row[Any]:
    """Return the case that goes on."""
    return the_case(engine, sql(engine, "SELECT min(id) FROM cases WHERE closed_at IS NULL")[0].min)


@dataclass
class Operator:
    """A person at a browser; ``wrong`` is what the browser complained about."""

    page: Page
    base: str
    wrong: list[str] = field(default_factory=list)

    def log_in(self) -> None:
        """Show the token where it is asked for."""
        self.page.goto(f"{self.base}/console")
        self.page.get_by_label("Token").fill(TOKEN)
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("heading", name="Overview")).to_be_visible()

    def looks(self, picture: Path) -> None:
        """See that the page fits and can be read; keep a picture."""
        self.page.screenshot(path=picture, full_page=True)
        width = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert width[0] <= width[1], f"{self.page.url} is wider than the screen"
        assert self.page.evaluate(CONTRAST) == [], self.page.url

    def open_case(self, number: int) -> None:
        """Go to a case by the list."""
        self.page.get_by_role("navigation", name="Pages").get_by_role("link", name="Cases").click()
        self.page.get_by_role("link", name=str(number), exact=True).click()


Sit = Callable[..., Operator]


@pytest.fixture
def sit(chromium: Browser, running: Servers, town: Engine, tmp_path: Path) -> Iterator[Sit]:
    """Return a function that seats an operator, logged in, at a screen of some size; nothing may go wrong there."""
    set_clock(tmp_path / "clock", the_case(town, 2).closed_at)
    with ExitStack() as stack:
        base = stack.enter_context(web(running, tmp_path, DUNNING_CONSOLE_TOKEN=TOKEN))
        seated: list[Operator] = []

        def come(size: str = "desk", scheme: str = "light", *, script: bool = True) -> Operator:
            width, height = SIZES[size]
            context = chromium.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
                java_script_enabled=script,
            )
            stack.callback(context.close)
            operator = Operator(context.new_page(), base)
            page, wrong = operator.page, operator.wrong
            page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
            page.on("response", lambda got: wrong.append(f"{got.status}: {got.url}") if got.status >= 400 else None)
            operator.log_in()
            seated.append(operator)
            return operator

        yield come
        assert [operator.wrong for operator in seated] == [[]] * len(seated)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_every_page_is_reached_by_clicks_fits_the_screen_and_can_be_read(
    sit: Sit, town: Engine, tmp_path: Path, size: str, scheme: str
) -> None:
    """Without an error of the browser, a missing file or a weak colour."""
    operator, case = sit(size, scheme), still_open(town)
    for name in CHOSEN_PAGES:
        operator.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        expect(operator.page).to_have_title(f"{name} · dunning")
        operator.looks(tmp_path / f"{name}.png")
    operator.open_case(case.id)
    operator.page.get_by_text("planned steps").click()
    operator.looks(tmp_path / "case.png")
    operator.page.get_by_role("button", name="Log out").click()
    operator.looks(tmp_path / "login.png")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_an_operator_pauses_a_case_and_sees_it_in_the_timeline(
    sit: Sit, town: Engine, tmp_path: Path, *, script: bool
) -> None:
    """First what it would mean, then the act, then who did it and why; it needs no script."""
    operator, case = sit("phone", script=script), still_open(town)
    operator.open_case(case.id)
    page = operator.page
    page.get_by_label("Reason").fill("she is on holiday")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("heading", name="Pause this case?")).to_be_visible()
    assert the_case(town, case.id).state == case.state
    if script:
        operator.looks(tmp_path / "preview.png")
    page.get_by_role("button", name="Yes, pause").click()
    expect(page.get_by_label("Verdict")).to_contain_text("pause: done.")
    paused = page.locator(".timeline > li", has_text="by: console")
    expect(paused).to_contain_text("reason: she is on holiday")
    assert the_case(town, case.id).state == "paused"
    page.get_by_label("Reason").fill("she is back")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Yes, resume").click()
    expect(page.get_by_label("Verdict")).to_contain_text("resume: done.")
    assert the_case(town, case.id).state == case.state


def test_a_replay_is_clicked_through_from_its_error(sit: Sit, town: Engine) -> None:
    """The event is handled again by the next tick, and is off the list."""
    page = sit().page
    page.get_by_role("link", name="events given up").click()
    page.get_by_role("button", name="Replay event").click()
    page.get_by_role("button", name="Yes, replay").click()
    expect(page.get_by_label("Verdict")).to_contain_text("done.")
    expect(page.get_by_role("heading", name="Events: 0")).to_be_visible()
    assert sql(town, "SELECT 1 FROM events WHERE tries = 5") == []


def test_the_overview_refreshes_itself_and_changes_nothing(sit: Sit, town: Engine) -> None:
    """Every thirty seconds, by a part of the page alone; the keyboard's place in the navigation stays."""
    page, before, case = sit().page, everything(town), still_open(town)
    page.clock.install()
    page.reload()
    page.get_by_role("link", name="Policy").focus()
    sql(town, "UPDATE cases SET state = 'paused' WHERE id = :id", id=case.id)
    expect(page.get_by_role("listitem").filter(has_text="paused")).to_have_text("paused: 0")
    with page.expect_response(lambda got: got.request.headers.get("hx-request") == "true"):
        page.clock.fast_forward(31_000)
    expect(page.get_by_role("listitem").filter(has_text="paused")).to_have_text("paused: 1")
    expect(page.get_by_role("link", name="Policy")).to_be_focused()
    sql(town, "UPDATE cases SET state = :state WHERE id = :id", state=case.state, id=case.id)
    assert sorted(everything(town).splitlines()) == sorted(before.splitlines())


def test_a_session_that_ended_leads_to_the_login_from_a_refresh_too(sit: Sit) -> None:
    """The part of a page that comes then is the login as a whole."""
    operator = sit()
    operator.page.clock.install()
    operator.page.reload()
    operator.page.context.clear_cookies()
    operator.page.clock.fast_forward(31_000)
    expect(operator.page.get_by_role("heading", name="Log in")).to_be_visible()
    operator.wrong[:] = [line for line in operator.wrong if "401" not in line]


def test_the_keyboard_alone_is_enough(sit: Sit) -> None:
    """The first stop leads past the navigation, and every stop is seen."""
    page = sit().page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(12):
        page.keyboard.press("Tab")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(f"document.activeElement === document.body || {outline} !== 'none'")


def test_no_header_makes_a_peer_another_one(running: Servers, engine: Engine, tmp_path: Path) -> None:
    """The real process believes its socket alone, whatever X-Forwarded-For says."""
    set_clock(tmp_path / "clock", START)
    chosen = {"DUNNING_CONSOLE_USER_HEADER": "X-Forwarded-User", "DUNNING_CONSOLE_PROXIES": "10.0.0.0/8"}
    assert everything(engine)
    with web(running, tmp_path, **chosen) as base:
        claims = {"X-Forwarded-User": "eve", "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1"}
        assert requests.get(f"{base}/console", headers=claims, timeout=30).status_code == 403
