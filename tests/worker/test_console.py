"""Does the console open to operators only, tell what the rows tell, and do nothing that nobody confirmed?"""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from itsdangerous import TimestampSigner
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import Response

from schedules import Card, Decline, Policy
from tests.worker.bench import Scripted, Serve
from tests.worker.builders import (
    DAY,
    HOUR,
    LOST,
    START,
    add_attempt,
    add_case,
    everything,
    one,
    opened,
    payment,
    reasons_of,
    sql,
    the_case,
    told,
)
from tests.worker.town import NOW, settle
from tests.worker.visitor import OURS, TOKEN, Open, words
from worker import inbox, replay
from worker.app import make_engine
from worker.clock import set_clock
from worker.settings import SettingsError, load_settings
from worker.web.console.guard import Guard

LETTER = "/notices?form=text&locale=ja"
PAGES = ("", "/cases", "/cases/1", "/failed", "/policy", "/notices", LETTER, "/report", "/churn")
BEHIND: dict[str, Any] = {"console_token": None, "console_user_header": "X-Forwarded-User"}


# Who comes in


@pytest.mark.parametrize(
    ("name", "value"),
    [("TOKEN", "short"), ("USER_HEADER", "X User:"), ("PROXIES", "10.0.0.1/8"), ("PROXIES", "proxy.example")],
)
def test_a_way_in_that_cannot_be_used_stops_the_start(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named, its value is not."""
    monkeypatch.setenv(f"DUNNING_CONSOLE_{name}", value)
    with pytest.raises(SettingsError, match=f"DUNNING_CONSOLE_{name}: ") as error:
        load_settings()
    assert value not in str(error.value)


@pytest.mark.parametrize("path", [*PAGES, "/login", "/static/console.css", "/logout"])
def test_without_a_token_or_a_proxys_login_there_is_no_console(visit: Open, path: str) -> None:
    """It is not there at all, for reading or writing."""
    stranger = visit(console_token=None)
    assert (stranger.get(path).status_code, stranger.post(path).status_code) == (404, 404)


@pytest.mark.parametrize("path", PAGES)
def test_a_stranger_is_led_to_the_login_and_sees_nothing(visit: Open, engine: Engine, path: str) -> None:
    """Whatever was asked for; a part of a page is told to load the login as a whole."""
    opened(engine)
    stranger = visit(login=False)
    answer = stranger.get(path)
    assert (answer.status_code, answer.text) == (303, "")
    assert answer.headers["location"].startswith("/console/login?next=/console")
    part = stranger.get(path, headers={"HX-Request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/console/login")
    assert stranger.post("/cases/1", act="pause", reason="x", sure="yes").status_code == 303
    assert the_case(engine).state == "silent"


def test_after_the_login_everybody_is_where_they_wanted_to_be(visit: Open) -> None:
    """But never on another site, whatever the address says."""
    stranger = visit(login=False)
    login = stranger.get("/cases?state=lost").headers["location"].removeprefix("/console")
    assert stranger.post(login, token=TOKEN).headers["location"] == "/console/cases?state=lost"
    for elsewhere in ("https://evil.example/", "//evil.example/console/", "/console@evil.example", "javascript:1"):
        answer = stranger.post(f"/login?next={elsewhere}", token=TOKEN)
        assert answer.headers["location"] == "/console"


@pytest.mark.parametrize("token", ["", "canary", TOKEN[:-1], f"{TOKEN}x", "é" * 36, TOKEN.upper()])
def test_a_wrong_token_opens_nothing(visit: Open, token: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The page says so, and neither it nor the log shows what was tried."""
    stranger = visit(login=False)
    answer = stranger.post("/login", token=token)
    assert (answer.status_code, answer.cookies.get_dict()) == (403, {})
    assert "This is not the token." in answer.text
    assert "canary" not in answer.text + "".join(capfd.readouterr())


def test_only_a_constant_time_comparison_decides_about_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long an answer takes tells nobody how much of a token is right."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return True

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert Guard(TOKEN, None, ()).admits("anything")
    assert compared == [(b"anything", TOKEN.encode())]


@pytest.mark.parametrize(
    ("host", "secure"),
    [("127.0.0.1:8000", False), ("localhost", False), ("[::1]:80", False), ("shop.example", True), ("[::2]", True)],
)
def test_the_session_is_a_cookie_that_no_script_and_no_other_site_can_use(
    visit: Open, host: str, *, secure: bool
) -> None:
    """It goes over plain HTTP on this machine only."""
    cookie = visit(login=False).post("/login", {**OURS, "Host": host}, token=TOKEN).headers["set-cookie"]
    flags = set(cookie.lower().split("; ")[1:])
    assert {"httponly", "samesite=strict", "path=/console", "max-age=43200"} <= flags
    assert ("secure" in flags) is secure
    assert TOKEN not in cookie


def guarded(peer: str = "127.0.0.1", **headers: str) -> Request:
    """Return a request as the server sees it."""
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "client": (peer, 1), "headers": named})


def test_a_session_ends_after_twelve_hours_and_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forged or changed one never begins. The library's clock alone is set: others' servers go on by theirs."""
    guard, instant = Guard(TOKEN, None, ()), [START]
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _self: int(instant[0].timestamp()))
    cookie = guard.let_in(guarded(), Response()).headers["set-cookie"].partition(";")[0]
    assert guard.who(guarded(cookie=cookie)) == "console"
    assert Guard("other" * 8, None, ()).who(guarded(cookie=cookie)) is None
    assert Guard(None, "x-user", ()).who(guarded(cookie=cookie)) is None
    changed = (cookie[:-1], f"{cookie}A", cookie.replace("ole", "olf"), "dunning_console=", "dunning_console=é")
    assert [guard.who(guarded(cookie=forged)) for forged in changed] == [None] * 5
    instant[0] = START + timedelta(hours=12, seconds=-1)
    assert guard.who(guarded(cookie=cookie)) == "console"
    instant[0] = START + timedelta(hours=12, seconds=1)
    assert guard.who(guarded(cookie=cookie)) is None


def test_whoever_logs_out_is_a_stranger_again(visit: Open) -> None:
    """The browser forgets the session."""
    operator = visit()
    assert operator.get("").status_code == 200
    assert operator.post("/logout").headers["location"] == "/console/login"
    assert operator.get("").status_code == 303


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://HERE"}, False),
        ({"Origin": "http://HERE"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "http://HERE1"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({}, False),
    ],
)
def test_only_a_page_of_the_console_changes_anything(
    visit: Open, engine: Engine, headers: dict[str, str], *, taken: bool
) -> None:
    """A form on another site is refused though the browser may send the cookie with it."""
    opened(engine)
    operator = visit()
    sent = {name: value.replace("HERE", operator.base.partition("://")[2]) for name, value in headers.items()}
    answer = operator.post("/cases/1", sent, act="pause", reason="x", sure="yes")
    assert (answer.status_code == 200, the_case(engine).paused) == (taken, taken)
    assert answer.status_code in (200, 403)


def test_no_other_site_logs_a_browser_in(visit: Open) -> None:
    """Or out."""
    operator = visit()
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert operator.post("/login", elsewhere, token=TOKEN).status_code == 403
    assert operator.post("/logout", elsewhere).status_code == 403
    assert operator.get("").status_code == 200


def test_a_proxy_on_this_machine_says_who_it_is(visit: Open, engine: Engine) -> None:
    """The name stands on the page and in the history of what was done; there is no login and no logout."""
    opened(engine)
    operator = visit(**BEHIND)
    assert operator.get("").status_code == 403
    assert operator.get("/login").status_code == 404
    operator.browser.headers["X-Forwarded-User"] = "ada"
    page = operator.get("/cases/1")
    assert ("ada" in words(page), "Log out" in page.text) == (True, False)
    assert operator.post("/cases/1", act="pause", reason="she asked", sure="yes").status_code == 200
    assert one(engine, "SELECT detail FROM history WHERE what = 'paused'") == {"by": "ada", "reason": "she asked"}


def test_a_name_from_anywhere_else_is_not_believed(visit: Open) -> None:
    """A stranger can send any header."""
    stranger = visit(**BEHIND, console_proxies=(ip_network("10.0.0.0/8"),))
    answer = stranger.get("/cases", headers={"X-Forwarded-User": "ada"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("127.0.0.2", False), ("::2", False), ("", False)],
)
def test_a_peer_is_a_proxy_by_its_address(peer: str, *, trusted: bool) -> None:
    """Those of this machine, unless others are named; a socket without an address is none."""
    guard = Guard(None, "X-User", load_settings().console_proxies)
    assert guard.who(guarded(peer, x_user="ada")) == ("ada" if trusted else None)


@pytest.mark.parametrize("name", ["", "  ", "a\tb\x00", "a" * 101])
def test_a_name_that_is_none_is_nobody(name: str) -> None:
    """Nor are two names at once: one of them may be the stranger's own."""
    guard = Guard(None, "X-User", load_settings().console_proxies)
    assert guard.who(guarded(x_user=name)) is None
    twice = guarded(x_user="ada")
    twice.scope["headers"].append((b"x-user", b"eve"))
    assert guard.who(Request(twice.scope)) is None


# What every answer has


@pytest.mark.parametrize("path", [*PAGES, "/cases/nobody", "/cases?due=x", "/nothing", "/static/console.css", "/login"])
def test_every_answer_is_kept_out_of_caches_frames_and_scripts(visit: Open, engine: Engine, path: str) -> None:
    """Nothing inline runs, nothing of others is loaded, nobody frames a page."""
    opened(engine)
    answer = visit().get(path)
    allowed = answer.headers["content-security-policy"]
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(allowed.split("; "))
    assert "frame-ancestors 'none'" in allowed
    assert "unsafe" not in allowed
    assert (answer.headers["referrer-policy"], answer.headers["x-content-type-options"]) == ("no-referrer", "nosniff")
    assert answer.headers["cache-control"] == ("max-age=3600" if "static" in path else "no-store")
    assert not re.search(r"<script(?![^>]*src=)|<style| style=| on\w+=", answer.text)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_built_for_everybody(visit: Open, engine: Engine, path: str) -> None:
    """It has a language, a way past the navigation, a label for each input, and a scope for each head of a table."""
    opened(engine)
    text = visit().get(path).text
    assert '<html lang="en">' in text
    assert 'href="#main"' in text
    labelled = set(re.findall(r'<label for="([^"]+)"', text))
    inputs = re.findall(r'<(?:input|select)(?![^>]*type="hidden")[^>]*', text)
    assert {re.search(r'id="([^"]+)"', each)[1] for each in inputs} <= labelled  # type: ignore[index]
    assert "<th>" not in text


def test_looking_changes_nothing(visit: Open, engine: Engine) -> None:
    """Every page, twice."""
    opened(engine)
    operator = visit()
    before = everything(engine)
    assert {operator.get(path).status_code for path in PAGES * 2} == {200}
    assert everything(engine) == before


@pytest.mark.parametrize("path", ["", "/cases", "/cases/1", "/failed"])
def test_without_the_database_a_page_says_so(visit: Open, path: str) -> None:
    """And no address of it."""
    away = make_engine("postgresql+psycopg://dunning@127.0.0.1:9/dunning")
    answer = visit(away).get(path)
    assert (answer.status_code, "127.0.0.1" in answer.text) == (503, False)
    assert "The database does not answer. Nothing was changed." in words(answer)
    away.dispose()


@pytest.mark.parametrize("path", ["/cases/7", "/cases/in_7", "/cases/%00", "/cases/" + "9" * 30, "/nothing", "/a/b/c"])
def test_what_is_not_there_is_told_as_such(visit: Open, path: str) -> None:
    """Also when it could not be."""
    answer = visit().get(path)
    assert (answer.status_code, "Not found" in answer.text) == (404, True)


@pytest.mark.parametrize(
    "query",
    [
        "state=asleep",
        "class=bad",
        "due=soon",
        "due=nan",
        "due=inf",
        "due=-1",
        "due=1e308",
        "page=0",
        "page=x",
        "page=99999999999999",
        "sort=id;drop",
        "customer=%00",
    ],
)
def test_a_filter_that_cannot_be_is_named(visit: Open, query: str) -> None:
    """Nothing is guessed."""
    answer = visit().get(f"/cases?{query}")
    assert (answer.status_code, f"{query.partition('=')[0]}" in words(answer)) == (400, True)


# What is told


def test_the_overview_tells_money_work_and_health(visit: Open, serve: Serve) -> None:
    """One case came back by a silent retry, one is open in another currency."""
    back, open_one = payment(1), payment(2, amount_minor=980, currency="jpy", customer_id="cus_2")
    street = serve(Scripted([back, open_one], declines=[]))
    street.hear(START)
    street.work(START)
    sql(street.engine, "UPDATE cases SET due_at = due_at + interval '9 days' WHERE payment_id = 'in_2'")
    street.run(1)
    operator = visit()
    now = the_case(street.engine).closed_at
    set_clock(Path(load_settings().clock_file or ""), now)
    seen = operator.reads("")
    assert "At risk ¥980 in 1 open case" in seen
    assert "Back in 30 days $19.99 silent retry: $19.99 in 1" in seen
    assert "Attempts per day, 30 days: 1" in seen
    assert all(part in seen for part in ("recovered : 1", "silent : 1", "not ready", "no tick yet", "failed jobs : 0"))
    assert 'aria-label="Attempts on each of the last 30 days by outcome: 1 together"' in operator.get("").text


def test_the_overview_counts_the_charges_of_the_next_day(visit: Open, engine: Engine) -> None:
    """What is overdue too; neither what comes later nor another step nor what was set aside."""
    charge, contact = '{"step": "charge", "at": "x", "reasons": []}', '{"step": "contact", "at": "x", "reasons": []}'
    plans = [(charge, 0), (charge, -5), (charge, 20), (charge, 30), (contact, 1), (charge, 2)]
    for number, (step, hours) in enumerate(plans):
        add_case(engine, payment_id=f"in_{number}")
        due = {"due": START + HOUR * hours, "step": step, "id": f"in_{number}"}
        sql(engine, "UPDATE cases SET due_at = :due, step = CAST(:step AS jsonb) WHERE payment_id = :id", **due)
    sql(engine, "UPDATE cases SET quarantined_at = now() WHERE payment_id = 'in_5'")
    assert "Charges planned in the next 24 hours: 3" in visit().reads("")


def test_a_stop_and_what_was_set_aside_are_seen_at_once(visit: Open, engine: Engine) -> None:
    """The health of the installation, as `/healthz` has it."""
    add_case(engine, quarantined_at=START)
    sql(engine, "INSERT INTO stops (name, at, reason) VALUES ('operator', :at, 'the bank called')", at=START)
    seen = visit().reads("")
    assert "charging is stopped since 2026-01-12 15:00 UTC: operator, the bank called" in seen
    assert "set aside : 1" in seen


def test_the_list_is_filtered_sorted_and_cut_into_pages(visit: Open, engine: Engine) -> None:
    """As the command does it; the filters go on to the next page."""
    for number in range(1, 53):
        opened(engine, payment(number, amount_minor=1000 + number, decline=LOST if number == 9 else payment().decline))
    operator = visit()

    def listed(query: str) -> list[str]:
        return re.findall(r'<a href="/console/cases/(\d+)">', operator.get(f"/cases?{query}").text)

    first = listed("sort=amount&desc=yes")
    assert (len(first), first[0]) == (50, "52")
    assert "?sort=amount&amp;desc=yes&amp;page=2" in operator.get("/cases?sort=amount&desc=yes").text
    assert listed("sort=amount&desc=yes&page=2") == ["2", "1"]
    assert listed("class=never") == ["9"]
    assert listed("customer=cus_7&state=silent") == ["7"]
    assert listed("account=acct_1") == listed("stuck=yes") == listed("state=lost&due=0") == []
    assert "No cases." in operator.reads("/cases?state=lost")


def test_a_case_tells_what_happened_what_comes_why_and_what_would_change_it(visit: Open, serve: Serve) -> None:
    """By its number and by its payment; every step that is planned has its reasons."""
    street = serve(Scripted([payment()], declines=[payment().decline]))
    street.hear(START)
    street.work(START)
    street.go_on()
    row = the_case(street.engine)
    operator = visit()
    seen = operator.reads("/cases/1")
    assert operator.reads("/cases/in_1") == seen
    assert all(reason in seen for reason in reasons_of(street.engine))
    assert "attempt 1 state: declined card: mastercard …4444 code: insufficient_funds" in seen.replace("  ", " ")
    assert "If it is paid now: close recovered" in seen
    assert "$19.99" in seen
    assert "charge.failed" in seen
    steps = re.findall(r"<li><strong>(\w+)[^<]*</strong>[^<]*<ul class=\"why\"><li>", operator.get("/cases/1").text)
    assert [steps[0], steps[-1]] == [row.step["step"], "close"]
    picture = re.search(r'aria-label="In local time of America/New_York: ([^"]+)"', operator.get("/cases/1").text)
    assert picture
    assert "failed on Mon 12 Jan at 10:00; now on Mon 12 Jan" in picture[1]
    assert "refused on" in picture[1]
    assert picture[1].count("charge planned") == steps.count("charge")


def test_an_ended_case_has_no_next_step_and_no_buttons(visit: Open, engine: Engine) -> None:
    """What it was is still told."""
    add_case(engine, state="lost", due_at=None, closed_at=START + DAY)
    seen = visit().reads("/cases/1")
    assert "lost" in seen
    assert ("Put it right" in seen, "Next:" in seen, "What would change it" in seen) == (False, False, False)


# What is done


@pytest.mark.parametrize(
    ("act", "after"),
    [("pause", "paused"), ("retry", "silent"), ("stop", "lost"), ("release", "released")],
)
def test_an_act_is_shown_first_and_done_when_confirmed(visit: Open, engine: Engine, act: str, after: str) -> None:
    """The first click says what it would mean and changes nothing; the history says who, and why."""
    opened(engine)
    operator, before = visit(), everything(engine)
    asked = operator.post("/cases/1", act=act, reason="she asked")
    assert f"{act.capitalize()} this case?" in words(asked)
    assert "What it means:" in words(asked)
    assert f"Yes, {act}" in asked.text
    assert everything(engine) == before
    done = operator.post("/cases/1", act=act, reason="she asked", sure="yes")
    assert f"{act}: done." in words(done)
    assert the_case(engine).state == after
    assert "she asked" in words(done)
    assert "console" in one(engine, "SELECT detail::text FROM history WHERE detail::text LIKE '%she asked%'")


def test_a_paused_case_can_be_resumed_and_not_paused_again(visit: Open, engine: Engine) -> None:
    """The page offers what is possible; whoever sends the other all the same is told why not."""
    opened(engine)
    operator = visit()
    operator.post("/cases/1", act="pause", reason="x", sure="yes")
    page = operator.get("/cases/1").text
    assert ('value="resume"' in page, 'value="pause"' in page) == (True, False)
    again = operator.post("/cases/1", act="pause", reason="x", sure="yes")
    assert "pause: not done. it is paused already" in words(again)
    assert "It would not be done: it is paused already" in words(operator.post("/cases/1", act="pause", reason="x"))
    operator.post("/cases/1", act="resume", reason="x", sure="yes")
    assert the_case(engine).state == "silent"


def test_what_cannot_be_done_now_is_told(visit: Open, engine: Engine) -> None:
    """A charge is under way; another case has ended."""
    add_attempt(engine, opened(engine), state="unknown")
    add_case(engine, payment_id="in_2", state="lost", due_at=None, closed_at=START)
    operator = visit()
    for act in ("stop", "release", "retry"):
        answer = operator.post("/cases/1", act=act, reason="x", sure="yes")
        assert "the outcome of a charge is not known yet" in words(answer)
    assert "it has ended: lost" in words(operator.post("/cases/2", act="pause", reason="x", sure="yes"))
    assert told(engine) == ["opened", "planned"]


@pytest.mark.parametrize("form", [{"act": "charge"}, {"reason": " "}, {"reason": "a" * 501}, {"reason": "a\x00b"}])
def test_an_act_that_is_none_or_has_no_reason_is_refused(visit: Open, engine: Engine, form: dict[str, str]) -> None:
    """With words about what was expected."""
    opened(engine)
    answer = visit().post("/cases/1", **{"act": "pause", "reason": "x", "sure": "yes", **form})
    assert (answer.status_code, "expected one" in words(answer)) == (400, True)
    assert told(engine) == ["opened", "planned"]


def test_an_act_on_a_case_that_is_not_there_is_not_found(visit: Open) -> None:
    """Nothing else happens."""
    assert visit().post("/cases/in_9", act="pause", reason="x", sure="yes").status_code == 404


def test_a_form_that_is_too_large_does_nothing(visit: Open, engine: Engine) -> None:
    """It is not read to its end."""
    opened(engine)
    answer = visit().post("/cases/1", act="pause", reason="x" * 20_000, sure="yes")
    assert (answer.status_code, the_case(engine).paused) == (400, False)


def test_what_others_have_written_does_no_harm(visit: Open, engine: Engine) -> None:
    """Tags in ids, codes, reasons and errors are text."""
    evil = "<script>alert(1)</script>\"'"
    opened(engine, payment(customer_id=evil, decline=Decline(evil), card=Card(evil, evil, evil, "US")))
    replay.note_failure(engine, "dunning.audit", None, ValueError(evil))
    sql(engine, "INSERT INTO stops (name, at, reason) VALUES ('operator', :at, :why)", at=START, why=evil)
    operator = visit()
    operator.post("/cases/1", act="pause", reason=evil, sure="yes")
    for path in ("", "/cases", "/cases/1", "/failed", "/cases?customer=" + evil):
        text = operator.get(path).text
        assert "alert(1)" in text
        assert "<script>" not in text
        assert "\"'" not in text


# What has failed


def test_failed_jobs_and_events_are_listed_and_replayed_after_a_preview(visit: Open, engine: Engine) -> None:
    """With their errors and counts; once replayed they are off the list."""
    opened(engine)
    for _ in range(2):
        replay.note_failure(engine, "dunning.work", 1, KeyError("unexpected"))
    given_up = {"tries": inbox.MOST_TRIES, "payload": '{"data": {"object": {"id": "in_1"}}}'}
    sql(
        engine,
        "INSERT INTO events (id, type, payload, tries, error) "
        "VALUES ('evt_1', 'invoice.paid', CAST(:payload AS jsonb), :tries, 'UnknownShape')",
        **given_up,
    )
    operator = visit()
    seen = operator.reads("/failed")
    assert "Jobs: 1" in seen
    assert "dunning.work case 1 Replay… KeyError: &#39;unexpected&#39; 2" in seen
    assert "invoice.paid evt_1 Replay… UnknownShape 5" in seen
    number = str(one(engine, "SELECT id FROM failures"))
    before = everything(engine)
    for kind, name in (("job", number), ("event", "evt_1")):
        assert f"Handle {kind} {name} again?" in words(operator.post("/failed", kind=kind, id=name))
    assert everything(engine) == before
    for kind, name in (("job", number), ("event", "evt_1")):
        assert f"{kind} {name}: done." in words(operator.post("/failed", kind=kind, id=name, sure="yes"))
    assert "Jobs: 0" in operator.reads("/failed")
    assert "Events: 0" in operator.reads("/failed")
    assert one(engine, "SELECT tries FROM events") == 0


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"kind": "job", "id": "7"}, 200),
        ({"kind": "event", "id": "evt_9"}, 200),
        ({"kind": "job", "id": "x"}, 400),
        ({"kind": "event", "id": "\x00"}, 400),
        ({"kind": "worker", "id": "1"}, 400),
        ({}, 400),
    ],
)
def test_what_has_not_failed_is_not_replayed(visit: Open, form: dict[str, str], status: int) -> None:
    """Unknown numbers get a verdict, what is no number is refused."""
    answer = visit().post("/failed", **{**form, "sure": "yes"})
    assert answer.status_code == status
    assert ("not done. no such" in words(answer)) is (status == 200)


# What was chosen, and what is said


def test_the_policy_page_tells_every_choice_and_draws_them(visit: Open) -> None:
    """Those of the default policy here."""
    operator = visit()
    seen, text = operator.reads("/policy"), operator.get("/policy").text
    assert f"deadline_days {Policy().deadline_days}" in seen
    assert "windows.contact 09:00 to 20:00, business days" in seen
    assert "ladder first on day 0, reminder on day 4" in seen
    assert "experiment.control_percent 0" in seen
    assert "contact 09:00 to 20:00, business days; sms" in text
    assert "notice: day 10; notice: day 14; notice: day 19; notice: day 24" in text


def test_the_policy_page_shows_own_decline_rules_and_where_the_rival_differs(
    visit: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that."""
    file = tmp_path / "policy.toml"
    rule = '[[declines]]\nsource = "stripe_card"\ncode = "restricted_card"\ndecline_class = "customer_action"\n'
    file.write_text(f"{rule}[experiment]\nrival_percent = 50\n[rival]\nsilent_days = 14\n", encoding="utf-8")
    monkeypatch.setattr("worker.app.policy", lambda: Policy.load(file))
    seen = visit().reads("/policy")
    assert "stripe_card restricted_card customer action" in seen
    assert "Policy B: what the rival does otherwise Choice A B silent_days 10 14 Every choice" in seen


def test_a_notice_can_be_read_in_each_language_and_form(visit: Open) -> None:
    """The letter stands in a frame in which nothing runs; as text it is on the page."""
    operator = visit()
    assert "Your payment of $19.99 did not go through" in operator.reads("/notices?notice=first")
    frame = re.search(
        r'<iframe [^>]*sandbox src="/console([^"]+)"', operator.get("/notices?notice=first&locale=de").text
    )
    assert frame
    letter = operator.get(frame[1].replace("&amp;", "&"))
    assert "sandbox" in letter.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in letter.headers["content-security-policy"]
    assert '<html lang="de"' in letter.text
    assert '<pre lang="ja">' in operator.get("/notices?form=text&locale=ja").text
    for wrong in ("notice=none", "locale=xx", "form=pdf"):
        assert operator.get(f"/notices?{wrong}").status_code == 400


# What came back


def test_the_report_page_answers_about_a_cohort(visit: Open, engine: Engine) -> None:
    """Of its days, and in groups; what cannot be asked is named."""
    for number, days in enumerate((0, 1, 40), start=1):
        opened(engine, payment(number, failed_at=START - DAY * days))
    operator = visit()
    assert "0 of 3" in operator.reads("/report")
    assert "0 of 2" in operator.reads("/report?from=2026-01-11&to=2026-01-13")
    assert "retry_later" in operator.reads("/report?by=class")
    for wrong in ("from=yesterday", "to=2026-02-30", "to=0001-01-01", "by=star", "from=2026-01-02&to=2026-01-01"):
        answer = operator.get(f"/report?{wrong}")
        assert (answer.status_code, "expected" in words(answer)) == (400, True)


# Who left


def test_the_churn_page_tells_who_left_and_gives_it_as_a_file(visit: Open, engine: Engine, tmp_path: Path) -> None:
    """Of January, counted by hand in ``town.py``; what cannot be asked is named."""
    settle(engine)
    operator = visit()
    set_clock(tmp_path / "clock", NOW)
    seen = operator.reads("/churn?by=plan")
    assert "63.6% of the customers left: 7 of 11" in seen
    assert "basic 8 4 50.0% 21.5% to 78.5% 1 2 1 2" in seen
    assert "too expensive 0 1 0 1" in seen
    assert "1 shown by the provider no longer, nor why" in seen
    assert "2026-01 3 3 1 7" in seen
    link = re.search(r'href="/console(/churn\.csv[^"]*)"', operator.get("/churn?by=plan").text)
    assert link
    table = operator.get(link[1].replace("&amp;", "&"))
    assert (table.status_code, table.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert visit(login=False).get("/churn.csv").status_code == 303
    assert table.text.splitlines()[1].startswith("2026-01-01,2026-02-01,True,plan,basic,8,4,0.5,")
    assert "Nobody was there at the start." in operator.reads("/churn?from=2020-01-01")
    for wrong in ("from=yesterday", "to=2026-02-30", "by=star", "from=2026-01-02&to=2026-01-01"):
        for path in ("/churn", "/churn.csv"):
            answer = operator.get(f"{path}?{wrong}")
            assert (answer.status_code, "expected" in words(answer)) == (400, True)


def test_the_churn_page_compares_the_arms_of_an_experiment(
    visit: Open, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With those who are left alone."""
    settle(engine)
    file = tmp_path / "policy.toml"
    file.write_text("[experiment]\ncontrol_percent = 30\n", encoding="utf-8")
    monkeypatch.setattr("worker.app.policy", lambda: Policy.load(file))
    operator = visit()
    set_clock(tmp_path / "clock", NOW)
    assert "a: involuntary 25.0% 33.3% -8.3" in operator.reads("/churn")
