"""Is what the merchant tells kept once, however it is sent, and what cannot be meant named and not guessed?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import requests
from pydantic import SecretStr
from sqlalchemy import Engine, insert
from standardwebhooks import Webhook

from tests.gateway.wire import served
from tests.worker.builders import DAY, HOUR, MINUTE, START, add_case, at_once, json_lines, one, sql
from tests.worker.test_segments import subscribed
from tests.worker.visitor import Open
from worker import standard_webhooks
from worker.app import make_engine
from worker.clock import machine_now, set_clock
from worker.models import risks, suppressions
from worker.settings import Settings, load_settings
from worker.signals import BATCH, BadSignal, Counts, latest, parse, take_in
from worker.web.bodies import LARGEST_BODY
from worker.web.webhooks import make_web

Run = Callable[..., CompletedProcess[str]]
JSON = dict[str, Any]
PAGE = (Path(__file__).parents[2] / "docs/signals.md").read_text(encoding="utf-8")
SECRET, NEXT = (f"whsec_{b64encode(letter * 32).decode()}" for letter in (b"s", b"t"))


def signal(number: int = 1, **changes: Any) -> JSON:
    """One that says that three tickets are open; what is None is left out."""
    blank = {"id": f"sig_{number}", "customer_id": "cus_1", "kind": "tickets_unresolved", "value": 3}
    told = {**blank, "at": (START - HOUR).isoformat(), **changes}
    return {name: value for name, value in told.items() if value is not None}


@pytest.fixture
def known(engine: Engine) -> Engine:
    """Give a database with one customer who has a case, and one who has a subscription."""
    add_case(engine)
    subscribed(engine, 2)
    return engine


def kept(engine: Engine, *values: Any) -> Counts:
    """Take in decoded values by their index, half an hour after the start."""
    counts = Counts()
    given = (({"index": index}, value) for index, value in enumerate(values))
    assert sum(1 for _ in take_in(engine, given, START, counts)) == -(-len(values) // BATCH)
    return counts


def rows(engine: Engine) -> list[tuple[Any, ...]]:
    """Return what is stored."""
    return [tuple(row) for row in sql(engine, "SELECT id, customer_id, kind, value FROM signals ORDER BY id")]


# What a signal is


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": None}, "id: missing"),
        ({"id": ""}, "id: expected 1 to 255 letters"),
        ({"id": 7}, "id: expected 1 to 255 letters"),
        ({"id": "a b"}, "id: expected 1 to 255 letters"),
        ({"id": "x" * 256}, "id: expected 1 to 255 letters"),
        ({"id": "a\0"}, "id: expected 1 to 255 letters"),
        ({"customer_id": None}, "customer_id: missing"),
        ({"customer_id": "ada@customer.example"}, "customer_id: expected 1 to 255 letters"),
        ({"account": ["acct_1"]}, "account: expected 1 to 255 letters"),
        ({"kind": None}, "kind: expected one of tickets_unresolved, usage_change_percent, satisfaction"),
        ({"kind": "mood"}, "kind: expected one of tickets_unresolved, usage_change_percent, satisfaction"),
        ({"kind": ["satisfaction"]}, "kind: expected one of"),
        ({"value": None}, "value: expected a whole number from 0 to 100,000 for tickets_unresolved"),
        ({"value": "3"}, "value: expected a whole number"),
        ({"value": True}, "value: expected a whole number"),
        ({"value": 1.5}, "value: expected a whole number"),
        ({"value": -1}, "value: expected a whole number"),
        ({"value": 10**400}, "value: expected a whole number"),
        ({"value": float("nan")}, "value: expected a whole number"),
        ({"value": float("inf")}, "value: expected a whole number"),
        ({"kind": "satisfaction", "value": 10.01}, "value: expected a number from 0 to 10 for satisfaction"),
        ({"kind": "satisfaction", "value": float("nan")}, "value: expected a number from 0 to 10 for satisfaction"),
        ({"kind": "usage_change_percent", "value": -100.5}, "value: expected a number from -100 to 100,000"),
        ({"at": None}, "at: expected an instant such as"),
        ({"at": 1768230000}, "at: expected an instant such as"),
        ({"at": "yesterday"}, "at: expected an instant such as"),
        ({"at": "2026-01-12"}, "at: the instant has no time zone"),
        ({"at": "2026-01-12T09:00:00"}, "at: the instant has no time zone"),
        (
            {"at": (START + 5 * MINUTE + timedelta(seconds=1)).isoformat()},
            "at: expected an instant from 2011 on and not",
        ),
        ({"at": "2010-12-31T23:59:59Z"}, "at: expected an instant from 2011 on and not"),
        ({"at": "0001-01-01T00:00:00+23:59"}, "at: expected an instant from 2011 on and not"),
        ({"at": "9999-12-31T23:59:59-23:59"}, "at: expected an instant from 2011 on and not"),
        (
            {"note": "calls often"},
            "'note': unknown field, expected id, customer_id, kind, value, at and perhaps account",
        ),
    ],
)
def test_what_is_no_signal_is_told_by_field_and_reason(changes: JSON, reason: str) -> None:
    """Nothing of it is guessed."""
    with pytest.raises(BadSignal, match=re.escape(reason)):
        parse(signal(**changes), START)


@pytest.mark.parametrize("value", [None, 3, "x", [], [signal()], float("nan")])
def test_what_is_no_object_is_no_signal(value: Any) -> None:
    """Whatever else JSON has."""
    with pytest.raises(BadSignal, match="expected an object"):
        parse(value, START)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("tickets_unresolved", 0),
        ("tickets_unresolved", 3.0),
        ("usage_change_percent", -100),
        ("usage_change_percent", 12.5),
        ("satisfaction", 10),
    ],
)
def test_the_ends_of_a_range_belong_to_it(kind: str, value: float) -> None:
    """So do instants of other zones and clocks that are a little ahead."""
    at = (START + 5 * MINUTE).astimezone(tz=None).isoformat()
    found = parse(signal(kind=kind, value=value, at=at), START)
    assert (found.value, found.at) == (float(value), START + 5 * MINUTE)


# What is kept


def test_signals_of_whoever_has_a_case_or_a_subscription_are_kept(known: Engine) -> None:
    """Once, whatever is sent again."""
    told = signal(), signal(2, customer_id="cus_2", kind="satisfaction", value=4.5)
    first, again = kept(known, *told), kept(known, *told)
    assert (first.new, first.duplicate, first.rejected) == (2, 0, [])
    assert (again.new, again.duplicate, again.rejected) == (0, 2, [])
    assert rows(known) == [("sig_1", "cus_1", "tickets_unresolved", 3.0), ("sig_2", "cus_2", "satisfaction", 4.5)]


def test_a_customer_that_nobody_knows_is_named_and_not_kept(known: Engine) -> None:
    """Nor one who is known in another account only."""
    found = kept(known, signal(1, customer_id="cus_9"), signal(2, account="acct_1"), signal(3))
    assert (found.new, found.unknown_customers) == (1, 2)
    assert found.rejected == [
        {"index": 0, "id": "sig_1", "reason": "customer_id: nobody knows cus_9"},
        {"index": 1, "id": "sig_2", "reason": "customer_id: nobody knows cus_1 of account acct_1"},
    ]
    assert [row[0] for row in rows(known)] == ["sig_3"]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("change", [{"value": 4}, {"customer_id": "cus_2"}, {"at": START.isoformat()}])
def test_an_id_with_another_content_is_named_and_the_first_stays(
    known: Engine, change: JSON, *, together: bool
) -> None:
    """In one batch as in two; a repetition beside it is a duplicate."""
    told = signal(), signal(**change), signal()
    batches = [kept(known, *told)] if together else [kept(known, each) for each in told]
    [refused] = [each for found in batches for each in found.rejected]
    assert (sum(each.new for each in batches), sum(each.duplicate for each in batches)) == (1, 1)
    assert (refused["id"], refused["reason"]) == ("sig_1", "id: known already, with another content")
    assert rows(known) == [("sig_1", "cus_1", "tickets_unresolved", 3.0)]


def test_one_that_is_wrong_loses_none_of_its_neighbours(known: Engine) -> None:
    """Over more than one batch; what was refused is told in the order in which it came."""
    values: list[Any] = [signal(number) for number in range(BATCH + 3)]
    values[1], values[BATCH] = signal(customer_id="cus_9"), {"id": "sig_x", "kind": "mood"}
    values[0] = None
    found = kept(known, *values)
    assert found.new == BATCH
    assert [each["index"] for each in found.as_json()["rejected"]] == [0, 1, BATCH]
    assert found.as_json()["rejected"][2]["id"] == "sig_x"


def test_two_who_send_the_same_at_once_keep_it_once(known: Engine) -> None:
    """In either order, without waiting for each other for ever."""
    told = [signal(number) for number in range(200)]
    found = at_once([lambda: kept(known, *told), lambda: kept(known, *reversed(told))])
    assert [each.new + each.duplicate for each in found] == [200, 200]
    assert sum(each.new for each in found) == one(known, "SELECT count(*) FROM signals") == 200
    assert [each.rejected for each in found] == [[], []]


def test_of_each_kind_the_latest_is_told(known: Engine) -> None:
    """By its own instant, not by when it came; of each customer."""
    kept(
        known,
        signal(1, value=2, at=(START - HOUR).isoformat()),
        signal(2, value=9, at=(START - DAY).isoformat()),
        signal(3, kind="satisfaction", value=1),
        signal(4, customer_id="cus_2", value=0),
    )
    with known.connect() as db:
        found = latest(db, ["cus_1", "cus_2", "cus_3"])
    told = {key: {kind: row.value for kind, row in kinds.items()} for key, kinds in found.items()}
    assert told == {
        (None, "cus_1"): {"tickets_unresolved": 2.0, "satisfaction": 1.0},
        (None, "cus_2"): {"tickets_unresolved": 0.0},
    }


# From a file


def test_a_file_of_lines_is_taken_in(operate: Run, known: Engine) -> None:
    """With exit code 1 and a line for each that was refused; sent again all are duplicates."""
    lines = json_lines(signal(1), b'{"id": "sig_2", ', signal(3, value=float("nan")), signal(4, customer_id="cus_9"))
    first = operate("signals", "-", given=lines)
    assert (first.returncode, first.stdout) == (1, "1 new, 0 duplicate, 3 rejected\n")
    assert first.stderr.splitlines()[0].startswith("line 2: not JSON: ")
    assert first.stderr.splitlines()[1:] == [
        "line 3: value: expected a whole number from 0 to 100,000 for tickets_unresolved",
        "line 4: customer_id: nobody knows cus_9",
    ]
    again = operate("signals", "-", "--json", given=json_lines(signal(1)))
    assert again.returncode == 0
    assert json.loads(again.stdout) == {"new": 0, "duplicate": 1, "unknown_customers": 0, "rejected": []}
    assert [row[0] for row in rows(known)] == ["sig_1"]


@pytest.mark.parametrize("form", [[signal(1), signal(2)], {"data": [signal(1), signal(2)]}])
def test_a_list_is_taken_in_too(operate: Run, known: Engine, form: Any) -> None:
    """On one line or over several."""
    assert operate("signals", "-", given=json.dumps(form, indent=1).encode()).returncode == 0
    assert len(rows(known)) == 2


def test_a_table_is_taken_in(operate: Run, known: Engine) -> None:
    """By the names of its columns; empty cells are none, and what is wrong is named by its line."""
    table = (
        "\ufeffid,customer_id,account,kind,value,at\r\n"
        f"sig_1,cus_1,,satisfaction,7.5,{START.isoformat()}\r\n"
        f"sig_2,cus_1,,satisfaction,good,{START.isoformat()}\r\n"
        f"sig_3,cus_1,,satisfaction,nan,{START.isoformat()}\r\n"
        f"sig_4,cus_1,,satisfaction,5,{START.isoformat()},more\r\n"
        "sig_5,cus_1\r\n"
    )
    done = operate("signals", "-", "--csv", given=table.encode())
    assert (done.returncode, done.stdout) == (1, "1 new, 0 duplicate, 4 rejected\n")
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [
        f"line {number}" for number in range(3, 7)
    ]
    assert rows(known) == [("sig_1", "cus_1", "satisfaction", 7.5)]


@pytest.mark.parametrize("given", [b"", b"\xff\xfe", b"[" * 100_000, b"3", b'{"id": "sig_1"'])
@pytest.mark.parametrize("form", [[], ["--csv"]])
def test_a_file_that_holds_no_signal_is_told(operate: Run, known: Engine, given: bytes, form: list[str]) -> None:
    """Without a traceback, and nothing is kept."""
    done = operate("signals", "-", *form, given=given)
    assert "Traceback" not in done.stderr
    assert rows(known) == []
    assert done.returncode == (0 if form else 1)


# Over HTTP


def made(engine: Engine, *secrets: str) -> Any:
    """Return the web application of an installation with these secrets."""
    chosen: JSON = {"signals_secret": tuple(SecretStr(each) for each in secrets)}
    return make_web(Settings(**chosen), engine)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the business clock an hour after the start."""
    set_clock(tmp_path / "clock", START + HOUR)
    monkeypatch.setenv("DUNNING_CLOCK_FILE", str(tmp_path / "clock"))
    load_settings.cache_clear()


@pytest.fixture
def send(known: Engine, clock: None) -> Iterator[Callable[..., requests.Response]]:
    """Return a function that sends a body as the merchant does."""
    del clock
    with served(made(known, SECRET, NEXT)) as url:

        def post(body: Any, secret: str = SECRET, ahead: int = 0, **headers: str) -> requests.Response:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            signed = standard_webhooks.sign([secret], "msg_1", machine_now() + timedelta(seconds=ahead), raw)
            return requests.post(f"{url}/signals", raw, headers={**signed, **headers}, timeout=20)

        yield post


@pytest.mark.parametrize("secret", [SECRET, NEXT])
def test_a_signed_list_is_judged_one_by_one(send: Callable[..., requests.Response], known: Engine, secret: str) -> None:
    """The answer names each that was refused by its index."""
    answer = send([signal(1), {"id": "sig_2"}, signal(3, customer_id="cus_9"), signal(1)], secret)
    assert answer.status_code == 200
    assert answer.json() == {
        "new": 1,
        "duplicate": 1,
        "unknown_customers": 1,
        "rejected": [
            {"index": 1, "id": "sig_2", "reason": "customer_id: missing"},
            {"index": 2, "id": "sig_3", "reason": "customer_id: nobody knows cus_9"},
        ],
    }
    assert [row[0] for row in rows(known)] == ["sig_1"]


def test_a_signal_alone_needs_no_list(send: Callable[..., requests.Response], known: Engine) -> None:
    """An object is one signal, and an empty list is none."""
    assert send(signal()).json()["new"] == 1
    assert send([]).json() == {"new": 0, "duplicate": 0, "unknown_customers": 0, "rejected": []}
    assert len(rows(known)) == 1


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"secret": f"whsec_{b64encode(b'x' * 32).decode()}"}, "the webhook-signature does not fit"),
        ({"ahead": -301}, "more than 300 s away"),
        ({"ahead": 302}, "more than 300 s away"),
        ({"webhook-timestamp": "now"}, "more than 300 s away"),
        ({"webhook-id": ""}, "there is no webhook-id"),
        ({"webhook-id": "msg_2"}, "the webhook-signature does not fit"),
        ({"webhook-signature": ""}, "the webhook-signature does not fit"),
        ({"webhook-signature": "v1,bm9uZQ=="}, "the webhook-signature does not fit"),
    ],
)
def test_what_nobody_signed_just_now_is_refused(
    send: Callable[..., requests.Response], known: Engine, more: JSON, reason: str
) -> None:
    """And keeps nothing."""
    answer = send([signal()], **more)
    assert (answer.status_code, rows(known)) == (400, [])
    assert reason in answer.json()["error"]


def test_a_signature_is_of_one_body(send: Callable[..., requests.Response], known: Engine) -> None:
    """What was changed on its way is refused."""
    signed = standard_webhooks.sign([SECRET], "msg_1", machine_now(), json.dumps([signal()]).encode())
    assert send([signal(2)], **signed).status_code == 400
    assert rows(known) == []


@pytest.mark.parametrize("body", [b"", b"{", b"3", b'"x"', b"null", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_a_body_that_holds_no_signals_is_refused(send: Callable[..., requests.Response], body: bytes) -> None:
    """As a mistake of the sender."""
    assert send(body).status_code == 400


def test_numbers_that_json_does_not_have_lose_no_neighbours(send: Callable[..., requests.Response]) -> None:
    """NaN and Infinity stand in many a body."""
    answer = send([signal(1, value=float("nan")), signal(2, value=float("-inf")), signal(3)])
    assert (answer.json()["new"], [each["index"] for each in answer.json()["rejected"]]) == (1, [0, 1])


def test_too_much_at_once_is_refused_whole(send: Callable[..., requests.Response], known: Engine) -> None:
    """By its number or by its size."""
    assert send([signal(number) for number in range(1001)]).status_code == 413
    assert send(b"x" * (LARGEST_BODY + 1)).status_code == 413
    assert rows(known) == []
    assert send([signal(number) for number in range(1000)]).json()["new"] == 1000


def test_two_equal_posts_at_once_keep_each_signal_once(send: Callable[..., requests.Response], known: Engine) -> None:
    """Both are answered, and what one has new the other has as a duplicate."""
    told = [signal(number) for number in range(50)]
    answers = [each.json() for each in at_once([lambda: send(told)] * 4)]
    assert sum(each["new"] for each in answers) == len(rows(known)) == 50
    assert sum(each["duplicate"] for each in answers) == 150


def test_without_a_secret_there_is_no_such_address(engine: Engine) -> None:
    """As with every other way in."""
    with served(made(engine)) as url:
        assert requests.post(f"{url}/signals", b"{}", timeout=20).status_code == 404


def test_a_database_that_is_away_asks_for_another_try(clock: None) -> None:
    """The sender knows that nothing was kept."""
    del clock
    nowhere = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    body = json.dumps([signal()]).encode()
    with served(made(nowhere, SECRET)) as url:
        headers = standard_webhooks.sign([SECRET], "msg_1", machine_now(), body)
        assert requests.post(f"{url}/signals", body, headers=headers, timeout=20).status_code == 503


def test_the_library_of_standard_webhooks_signs_what_we_take(known: Engine, clock: None) -> None:
    """Another implementation than ours."""
    del clock
    body, now = json.dumps(signal()), machine_now()
    signature = Webhook(SECRET).sign("msg_1", now, body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    with served(made(known, SECRET)) as url:
        assert requests.post(f"{url}/signals", body, headers=headers, timeout=20).json()["new"] == 1


def test_the_program_that_the_page_shows_runs_as_it_stands(known: Engine, clock: None) -> None:
    """It signs, sends and prints the answer."""
    del clock
    shown = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    with served(made(known, SECRET)) as url:
        places = {**os.environ, "DUNNING_URL": url, "DUNNING_SIGNALS_SECRET": SECRET}
        done = subprocess.run(
            [sys.executable, "-c", shown[1]], env=places, capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(known) == [("tickets-2026-01-12-7", "cus_1", "tickets_unresolved", 3.0)]


# On the console


def test_the_page_of_a_customer_tells_what_is_known(visit: Open, known: Engine) -> None:
    """Subscriptions with their risk, cases, signals with their meaning, and why nobody writes."""
    kept(known, signal(), signal(2, kind="satisfaction", value=2.5, at=(START - DAY).isoformat()))
    subscribed(known, amount_minor=1999, monthly_minor=1999, reason="cancellation_requested", feedback="too_expensive")
    scored = {"at": START, "seen_at": START, "seen": {}, "chance_30": 0.12, "reasons": ["the card expires first"]}
    quiet = {"customer_id": "cus_1", "why": "by_hand", "at": START}
    with known.begin() as db:
        db.execute(
            insert(risks).values(subscription_id="sub_1", month=START.date().replace(day=1), chance_90=0.81, **scored)
        )
        db.execute(insert(suppressions).values(quiet))
    page = visit().reads("/customers/cus_1")
    for told in (
        "sub_1 active",
        "$19.99",
        "cancellation requested, too expensive",
        "within 30 days: 12 %, within 90: 81 %",
        "the card expires first",
        "tickets unresolved 3",
        "satisfaction 2.5 2026-01-11 15:00 UTC",
        "the customer is not to be written to",
        "silent",
    ):
        assert told in page


@pytest.mark.usefixtures("known")
def test_a_customer_without_cases_has_a_page_and_a_stranger_has_none(visit: Open) -> None:
    """The page of a case leads there."""
    operator = visit()
    assert "No payment failed so far." in operator.reads("/customers/cus_2")
    assert [operator.get(f"/customers/{name}").status_code for name in ("cus_9", "%00", "a%0Ab")] == [404, 404, 404]
    assert 'href="/console/customers/cus_1"' in operator.get("/cases/1").text
    assert visit(login=False).get("/customers/cus_1").status_code == 303
