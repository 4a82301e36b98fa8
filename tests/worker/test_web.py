"""What comes in over HTTP? Signed events once, and nothing from anybody else; health and metrics tell the truth."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from socket import create_server
from typing import Any

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import Engine

from tests.worker.builders import START, add_case, at_once, event, invoice, one, sql
from worker import watch
from worker.app import make_engine
from worker.practice.events import signature
from worker.settings import Settings
from worker.web.bodies import LARGEST_BODY
from worker.web.webhooks import make_web

SECRET, NEXT = "whsec_canary_first", "whsec_canary_next"


@dataclass
class Web:
    """The running web application and the answers it gives."""

    port: int

    def ask(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Send one request; return status and body."""
        line = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            line.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = line.getresponse()
            return answer.status, answer.read()
        finally:
            line.close()

    def send(self, body: bytes, secret: str = SECRET, ahead: int = 0, signed: str | None = None) -> int:
        """Deliver an event as the provider does; return the status."""
        header = signature(secret, body, int(time.time()) + ahead) if signed is None else signed
        return self.ask("POST", "/webhooks/stripe", body, Stripe_Signature=header)[0]


@contextmanager
def serving(engine: Engine) -> Iterator[Web]:
    """Serve the application over one database."""
    secrets: Any = {"stripe_webhook_secret": (SecretStr(SECRET), SecretStr(NEXT))}
    settings = Settings(**secrets)
    listener = create_server(("127.0.0.1", 0))
    app = make_web(settings, engine)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield Web(listener.getsockname()[1])
    server.should_exit = True
    thread.join(20)
    listener.close()


@pytest.fixture
def web(engine: Engine) -> Iterator[Web]:
    """Serve the application over the tests' database."""
    with serving(engine) as running:
        yield running


@pytest.fixture
def without_database() -> Iterator[Web]:
    """Serve the application over a database that is not there."""
    engine = make_engine("postgresql+psycopg://dunning@127.0.0.1:9/dunning")
    with serving(engine) as running:
        yield running
    engine.dispose()


def stored(engine: Engine) -> int:
    """Return how many events are stored."""
    found: int = one(engine, "SELECT count(*) FROM events")
    return found


BODY = json.dumps(event()).encode()


def test_a_signed_event_is_stored_before_it_is_answered(web: Web, engine: Engine) -> None:
    """After the 200 the row is there, not handled yet, as it was sent but for the customer's address and link."""
    assert web.send(BODY) == 200
    sent = json.loads(BODY)
    kept = one(engine, "SELECT payload FROM events WHERE handled_at IS NULL")
    for name in ("customer_email", "hosted_invoice_url"):
        assert sent["data"]["object"].pop(name) is not None
        assert kept["data"]["object"].pop(name) is None
    assert kept == sent


def test_a_repeated_event_is_answered_and_stored_once(web: Web, engine: Engine) -> None:
    """Repeated one after the other and eight times at once."""
    assert {web.send(BODY) for _ in range(2)} == {200}
    assert at_once([lambda: web.send(json.dumps(event("evt_2")).encode())] * 8) == [200] * 8
    assert stored(engine) == 2


def test_both_secrets_are_taken_during_a_roll(web: Web, engine: Engine) -> None:
    """The provider signs with the old or the new one, or with both in one header."""
    assert web.send(BODY, secret=NEXT) == 200
    both = json.dumps(event("evt_2")).encode()
    now = int(time.time())
    header = f"{signature('whsec_third', both, now)},{signature(NEXT, both, now).split(',')[1]}"
    assert web.send(both, signed=header) == 200
    assert stored(engine) == 2


def test_an_event_of_another_type_is_answered_and_not_stored(web: Web, engine: Engine) -> None:
    """Otherwise the provider would send it again for three days."""
    assert web.send(json.dumps(event(kind="plan.created")).encode()) == 200
    assert stored(engine) == 0


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=1",
        "v1=00",
        "nonsense",
        "t=now,v1=00",
        "t=99999999999999999999,v1=00",
        f"t={2**70},v1=é",
        ",,,=,=",
        "t=1,v1=" + "0" * 5000,
    ],
)
def test_a_header_that_is_no_signature_is_refused(web: Web, engine: Engine, header: str) -> None:
    """Strangers cause 400 and nothing else."""
    assert (web.send(BODY, signed=header), stored(engine)) == (400, 0)


def test_a_signature_that_is_not_ascii_is_refused(web: Web, engine: Engine) -> None:
    """Its bytes reach the check as they are."""
    assert (web.send(BODY, signed=f"t={int(time.time())},v1=\xe9\xff"), stored(engine)) == (400, 0)


def test_a_forged_or_changed_event_is_refused(web: Web, engine: Engine) -> None:
    """Signed by somebody else, cut short, or changed by one byte on the way."""
    header = signature(SECRET, BODY, int(time.time()))
    answers = [web.send(BODY, secret="whsec_other"), web.send(BODY[:-1], signed=header)]
    answers.append(web.send(BODY.replace(b"1999", b"1998"), signed=header))
    assert (answers, stored(engine)) == ([400, 400, 400], 0)


@pytest.mark.parametrize("ahead", [-320, 400, 10**9])
def test_an_event_from_another_time_is_refused(web: Web, engine: Engine, ahead: int) -> None:
    """Older than 300 seconds it may be a replay; more than 300 seconds ahead it would stay valid for ever."""
    assert (web.send(BODY, ahead=ahead), stored(engine)) == (400, 0)


@pytest.mark.parametrize("ahead", [-200, 200])
def test_clocks_may_differ_a_little(web: Web, ahead: int) -> None:
    """Three minutes either way are no attack."""
    assert web.send(BODY, ahead=ahead) == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe{}",
        b"not json",
        b"[1, 2]",
        b"17",
        b"null",
        b"{}",
        b'{"id": "evt_1", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered"}',
        b"[" * 200_000,
        json.dumps(event(subject=invoice(currency="xxq"))).encode(),
        json.dumps(event(subject=invoice(customer="\0"))).encode(),
        json.dumps(event(subject=invoice(customer="\ud800"))).encode(),
        json.dumps(event(subject=invoice(tax=float("inf")))).encode(),
        json.dumps(event(subject=invoice(tax=0))).encode().replace(b'"tax": 0', b'"tax": ' + b"[" * 700 + b"]" * 700),
    ],
    ids=[
        "empty",
        "not UTF-8",
        "not JSON",
        "list",
        "number",
        "null",
        "nothing",
        "thin",
        "deep",
        "xxq",
        "NUL",
        "surrogate",
        "inf",
        "deep within",
    ],
)
def test_a_signed_body_that_is_no_event_is_refused(web: Web, engine: Engine, body: bytes) -> None:
    """The signature makes it authentic, not usable: 400 and no row."""
    assert (web.send(body), stored(engine)) == (400, 0)


def test_a_thin_event_is_refused_in_words_that_say_what_to_change(web: Web, engine: Engine) -> None:
    """An endpoint of API v2 sends notifications without an object; it has to be set up for snapshots."""
    thin = {"id": "evt_1", "object": "v2.core.event", "type": "v2.core.account.updated", "created": "2026-01-12T15:00Z"}
    body = json.dumps({**thin, "related_object": {"id": "acct_1", "type": "v2.core.account"}}).encode()
    header = signature(SECRET, body, int(time.time()))
    status, answer = web.ask("POST", "/webhooks/stripe", body, Stripe_Signature=header)
    assert (status, stored(engine)) == (400, 0)
    assert "thin event" in json.loads(answer)["error"]
    assert "snapshot events" in json.loads(answer)["error"]


def test_an_accepted_event_sent_again_much_later_is_refused_and_changes_nothing(web: Web, engine: Engine) -> None:
    """Whoever has kept a copy with its old signature cannot use it; what is stored stays as it was."""
    assert web.send(BODY) == 200
    [before] = sql(engine, "SELECT * FROM events")
    assert web.send(BODY, ahead=-301) == 400
    assert sql(engine, "SELECT * FROM events") == [before]


def test_an_event_of_a_connected_account_is_kept_with_it(web: Web, engine: Engine) -> None:
    """Whatever is asked about it later is asked of that account."""
    assert web.send(json.dumps(event(account="acct_7")).encode()) == 200
    assert one(engine, "SELECT account FROM events") == "acct_7"


@pytest.mark.parametrize("size", [LARGEST_BODY + 1, 10 * 1024 * 1024])
def test_what_is_too_large_is_refused_before_it_is_verified(web: Web, engine: Engine, size: int) -> None:
    """Without any signature too: nobody makes us hash megabytes."""
    chunks = (b"z" * min(65536, size - start) for start in range(0, size, 65536))
    assert web.ask("POST", "/webhooks/stripe", chunks)[0] == 413
    assert stored(engine) == 0


def test_a_body_beyond_a_megabyte_is_refused(web: Web, engine: Engine) -> None:
    """Announced or sent in chunks of unknown number, it is not read to its end."""
    body = b"x" * (LARGEST_BODY + 1)
    header = signature(SECRET, body, int(time.time()))
    assert web.send(body, signed=header) == 413
    chunks = (b"y" * 65536 for _ in range(17))
    assert web.ask("POST", "/webhooks/stripe", chunks, Stripe_Signature=header)[0] == 413
    assert stored(engine) == 0


def test_a_large_event_below_the_limit_is_taken_in_chunks(web: Web, engine: Engine) -> None:
    """A real invoice with many lines is no attack."""
    body = json.dumps(event(subject=invoice(description="x" * 900_000))).encode()
    chunks = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    header = signature(SECRET, body, int(time.time()))
    assert web.ask("POST", "/webhooks/stripe", chunks, Stripe_Signature=header)[0] == 200
    assert stored(engine) == 1


def test_no_secret_gets_into_logs_or_answers(
    web: Web, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is refused is told without the secrets, the signature and the customer's address."""
    header = signature("whsec_other", BODY, int(time.time()))
    answers = [web.ask("POST", "/webhooks/stripe", BODY, Stripe_Signature=header)[1] for _ in range(2)]
    out = "".join(capfd.readouterr()) + caplog.text
    assert "webhook refused" in out
    for canary in (SECRET, NEXT, "canary", header, header[-64:], "ada.1@customer.example"):
        assert canary not in out + str(answers)


def test_an_event_that_could_not_be_committed_is_not_acknowledged(without_database: Web) -> None:
    """Without the database the provider is told to come again."""
    assert without_database.send(BODY) == 503


def test_health_tells_what_waits(web: Web, engine: Engine) -> None:
    """With the database there it is 200 and counts; a due case and an unhandled event are seen."""
    watch.did(engine, "worker", watch.TICK)
    well = {"healthy": True, "live": True, "ready": True, "why": [], "stopped": [], "audit": None}
    quiet = {**well, "events_waiting": 0, "cases_due": 0, "cases_quarantined": 0}
    quiet["provider"] = {"state": "closed", "since": None, "failures": 0}
    assert json.loads(web.ask("GET", "/healthz")[1]) == quiet
    web.send(BODY)
    add_case(engine, due_at=START)
    status, body = web.ask("GET", "/healthz")
    assert (status, json.loads(body)) == (200, {**quiet, "events_waiting": 1, "cases_due": 1})


def test_health_is_red_without_the_database(without_database: Web) -> None:
    """A supervisor sees it, and no address is told."""
    status, body = without_database.ask("GET", "/healthz")
    assert (status, json.loads(body)["healthy"]) == (503, False)
    assert b"127.0.0.1" not in body


def test_metrics_can_be_read_by_prometheus(web: Web, engine: Engine) -> None:
    """The text parses, and the gauges are the counts of the database."""
    add_case(engine)
    add_case(engine, payment_id="in_2", state="lost", closed_at=START, due_at=None)
    status, body = web.ask("GET", "/metrics")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert status == 200
    assert samples[("dunning_cases", "silent")] == samples[("dunning_cases", "lost")] == 1
    assert samples[("dunning_cases_due",)] == 1
    assert samples[("dunning_events_waiting",)] == 0
