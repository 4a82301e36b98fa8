"""Do the merchant's own systems hear everything, at least once and signed, and does nobody wait for them?"""

from __future__ import annotations

import hmac
import json
import logging
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schedules import Policy
from schedules.policy import HOOKS
from tests.gateway.wire import Exchange, Record, served
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    DAY,
    HOUR,
    JSON,
    LOST,
    MINUTE,
    START,
    add_case,
    add_notice,
    everything,
    one,
    payment,
    sql,
    the_case,
    told,
    until,
)
from tests.worker.test_notices import SECOND, SOON, SPOKEN, speaking
from worker import checks, notices, stops, sweep
from worker.clock import machine_now
from worker.hooks import HookError, Hooks
from worker.leases import claim_due
from worker.mail import Mailbox
from worker.models import outbox
from worker.planning import open_case
from worker.settings import Settings, SettingsError, load_settings
from worker.wording import Letterhead

REPO = Path(__file__).parents[2]
SECRET, OTHER = (f"whsec_{b64encode(letter * 32).decode()}" for letter in (b"a", b"b"))
HOOKED = Policy(hooks=HOOKS)
NOON, EVENING = START + 2 * HOUR, START + 8 * HOUR  # in New York; in the evening there may be mail, but no SMS


@dataclass
class Receiver:
    """The merchant's endpoint: what it was asked, and what it answers, which may depend on the request."""

    url: str
    record: Record = field(default_factory=Record)
    answer: Callable[[Request], Response] = lambda _request: Response()

    @property
    def asked(self) -> list[Exchange]:
        """Return every request, answered or not."""
        return self.record.exchanges

    @property
    def taken(self) -> list[JSON]:
        """Return what it said it has, by the order of arrival."""
        return [json.loads(each.body) for each in self.asked if each.status == 200]

    def hooks(self, *secrets: str, **more: Any) -> Hooks:
        """Return what we tell it by."""
        return Hooks(f"{self.url}/canary", secrets or (SECRET,), **more)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give an endpoint."""
    with receiving() as found:
        yield found


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run an endpoint that takes everything until it is told otherwise."""
    found = Receiver("")

    async def answer(request: Request) -> Response:
        await request.body()
        return found.answer(request)

    with served(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])]), found.record) as found.url:
        yield found


def answering(status: int) -> Callable[[Request], Response]:
    """Answer everything alike."""
    return lambda _request: Response("canary", status)


def genuine(exchange: Exchange, secret: str = SECRET) -> bool:
    """Whether a secret signed this request, computed by hand."""
    key = b64decode(secret.removeprefix("whsec_"))
    head = f"{exchange.headers['webhook-id']}.{exchange.headers['webhook-timestamp']}."
    expected = b64encode(hmac.digest(key, head.encode() + exchange.body, "sha256")).decode()
    return f"v1,{expected}" in exchange.headers["webhook-signature"].split(" ")


def ids(exchanges: list[Exchange]) -> list[str]:
    """Return the ids of some requests."""
    return [each.headers["webhook-id"] for each in exchanges]


def opened(serve: Serve, *hooks: str, **settings: Any) -> Bench:
    """Return a bank with one case, of which the policy wants told what ``hooks`` name."""
    street = serve(policy=Policy(hooks=hooks or ("case.opened",)), **settings)
    with street.engine.begin() as db:
        open_case(db, payment(), None, street.policy, START)
    return street


def deliver(street: Bench, hooks: Hooks | None, now: datetime = NOON, folder: Path = Path("nowhere")) -> None:
    """Deliver what is due; what is not taken is told by its row."""
    with street.engine.begin() as db:
        due = claim_due(db, outbox, now, 100, 180)
    box = Mailbox("billing@shop.example", folder / "notices", letterhead=Letterhead("Shop"))
    for number, token in due:
        with suppress(HookError):
            notices.deliver(replace(street.desk(now), hooks=hooks), box, number, UUID(token))


def deliver_all(street: Bench, hooks: Hooks) -> datetime:
    """Step the clock to whatever is due until nothing is; return the last instant."""
    now = START
    while (due := one(street.engine, "SELECT min(due_at) FROM outbox")) is not None:
        now = due
        deliver(street, hooks, now)
    return now


def the_row(engine: Engine) -> Any:
    """Return the only message of the outbox."""
    [row] = sql(engine, "SELECT * FROM outbox")
    return row


# What is told


def test_a_case_that_recovers_is_told_from_beginning_to_end(serve: Serve, receiver: Receiver) -> None:
    """Opened, planned and recovered, with ids and money, in the order of their instants."""
    street = serve(Scripted(), policy=HOOKED)
    street.hear(START)
    while the_case(street.engine).closed_at is None:
        deliver(street, receiver.hooks(), street.go_on())
    deliver(street, receiver.hooks(), street.instant[0])
    said = sorted(receiver.taken, key=lambda each: str(each["timestamp"]))
    kinds = [each["type"] for each in said]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("case.opened", "case.recovered", {"case.planned"})
    assert said[0]["timestamp"] == "2026-01-12T15:00:00Z"
    shown = {"case_id": 1, "payment_id": "in_1", "account": None, "customer_id": "cus_1", "subscription_id": "sub_1"}
    shown |= {"amount_minor": 1999, "currency": "usd"}
    assert said[0]["data"] == shown
    assert said[-1]["data"] == shown | {"recovered_by": "silent_retry"}
    steps = [each["data"]["step"]["step"] for each in said[1:-1]]
    assert (steps[0], steps[-1]) == ("refresh", "charge")
    assert all(genuine(each) for each in receiver.asked)
    assert len(set(ids(receiver.asked))) == len(receiver.asked)


def test_a_case_that_is_lost_is_told(serve: Serve, receiver: Receiver, tmp_path: Path) -> None:
    """As what it is, and nothing is told that the policy does not name."""
    street = serve(Scripted([payment(decline=LOST)]), policy=Policy(hooks=("case.lost",)))
    street.hear(START)
    street.run()
    deliver(street, receiver.hooks(), street.instant[0], tmp_path)
    assert [(each["type"], each["data"]["payment_id"]) for each in receiver.taken] == [("case.lost", "in_1")]


def test_the_message_is_in_the_form_of_standard_webhooks(serve: Serve, receiver: Receiver) -> None:
    """JSON with type, instant and data; the headers name id and present time; the signature fits this secret only."""
    deliver(opened(serve), receiver.hooks())
    [asked] = receiver.asked
    assert (asked.method, asked.path, asked.headers["content-type"]) == ("POST", "/canary", "application/json")
    assert set(json.loads(asked.body)) == {"type", "timestamp", "data"}
    assert (genuine(asked), genuine(asked, OTHER)) == (True, False)
    sent = datetime.fromtimestamp(int(asked.headers["webhook-timestamp"]), machine_now().tzinfo)
    assert abs(machine_now() - sent) < MINUTE
    assert Webhook(SECRET).verify(asked.body, asked.headers)["type"] == "case.opened"


def test_two_secrets_sign_while_one_is_replaced(serve: Serve, receiver: Receiver) -> None:
    """A receiver that knows either takes the message."""
    deliver(opened(serve), receiver.hooks(OTHER, SECRET))
    [asked] = receiver.asked
    assert len(asked.headers["webhook-signature"].split(" ")) == 2
    assert (genuine(asked), genuine(asked, OTHER)) == (True, True)
    for known in (SECRET, OTHER):
        assert Webhook(known).verify(asked.body, asked.headers)


# What is not taken


def test_an_endpoint_that_fails_for_a_day_hears_everything_once_it_recovers(serve: Serve, receiver: Receiver) -> None:
    """Each message under the id it always had, and none is lost."""
    street = opened(serve, "case.opened", "case.planned")
    receiver.answer = lambda _request: Response(status_code=500 if street.instant[0] < START + DAY else 200)
    street.work(START)
    waiting = one(street.engine, "SELECT count(*) FROM outbox")
    assert waiting > 2
    last = deliver_all(street, receiver.hooks())
    assert START + DAY < last < START + 2 * DAY
    asked = ids(receiver.asked)
    assert len(asked) > 5 * waiting
    assert len(receiver.taken) == len(set(asked)) == waiting
    assert len({each["timestamp"] + each["type"] + json.dumps(each["data"]) for each in receiver.taken}) == waiting
    assert one(street.engine, "SELECT count(*) FROM outbox WHERE delivered_at = :at AND error IS NULL", at=last)
    assert told(street.engine)[-1] == "delivered"


def test_a_message_that_nobody_takes_for_three_days_is_given_up(serve: Serve, receiver: Receiver) -> None:
    """It stays for a person, with its error, after growing waits."""
    street = opened(serve)
    receiver.answer = answering(503)
    last = deliver_all(street, receiver.hooks())
    assert START + 3 * DAY < last < START + 4 * DAY
    assert (len(receiver.asked), len(set(ids(receiver.asked)))) == (15, 1)
    row = the_row(street.engine)
    assert (row.due_at, row.delivered_at, row.error) == (None, None, "the endpoint answered 503")


def test_an_endpoint_that_is_gone_is_not_asked_again(serve: Serve, receiver: Receiver) -> None:
    """Neither in minutes nor in days."""
    street = opened(serve)
    receiver.answer = answering(410)
    deliver(street, receiver.hooks())
    deliver(street, receiver.hooks(), START + 9 * DAY)
    assert len(receiver.asked) == 1
    row = the_row(street.engine)
    assert (row.due_at, row.error) == (None, "the endpoint says that it is gone (410)")


def test_a_redirect_is_not_followed(serve: Serve, receiver: Receiver) -> None:
    """What we tell goes to the address that was set and to no other; it counts as not taken."""
    street = opened(serve)
    receiver.answer = lambda _request: Response(status_code=302, headers={"location": f"{receiver.url}/elsewhere"})
    deliver(street, receiver.hooks())
    assert [each.path for each in receiver.asked] == ["/canary"]
    row = the_row(street.engine)
    assert (row.due_at, row.error) == (NOON + 2 * MINUTE, "the endpoint answered 302")


def test_an_endpoint_that_does_not_answer_is_not_waited_for(serve: Serve, receiver: Receiver) -> None:
    """The time limit ends the try; the next one has the same id."""
    street, held = opened(serve), Event()
    receiver.record.before = lambda _exchange: until(held.is_set)
    deliver(street, receiver.hooks(read_seconds=0.1))
    row = the_row(street.engine)
    held.set()
    assert row.error == "the endpoint did not answer: ReadTimeout"
    deliver(street, receiver.hooks(), row.due_at)
    assert len(ids(receiver.asked)) == 2
    assert len(set(ids(receiver.asked))) == 1
    assert the_row(street.engine).delivered_at == row.due_at


def test_an_endpoint_that_is_not_there_is_tried_again(serve: Serve) -> None:
    """No connection is no delivery."""
    street = opened(serve)
    deliver(street, Hooks("http://127.0.0.1:9/", (SECRET,)))
    row = the_row(street.engine)
    assert (row.due_at, row.error) == (NOON + 2 * MINUTE, "the endpoint did not answer: ConnectionError")


def test_a_proxy_of_the_environment_is_not_used(
    serve: Serve, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a password that a file names."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    deliver(opened(serve), receiver.hooks())
    assert len(receiver.taken) == 1


def test_a_message_without_an_endpoint_waits(serve: Serve, receiver: Receiver) -> None:
    """The settings were taken away while it was on its way: it leaves once they are back."""
    street = opened(serve)
    deliver(street, None)
    row = the_row(street.engine)
    assert row.error == "DUNNING_HOOK_URL or DUNNING_HOOK_SECRET is not set"
    deliver(street, receiver.hooks(), row.due_at)
    assert len(receiver.taken) == 1


@pytest.mark.parametrize("channel", ["hook", "sms"])
def test_a_worker_that_hangs_while_telling_is_repeated_under_the_same_id(
    serve: Serve, receiver: Receiver, channel: str
) -> None:
    """Nobody knows whether it arrived: the receiver can leave out what it has, so it is told again."""
    street = opened(serve) if channel == "hook" else due(serve, "sms")
    held = Event()
    receiver.record.before = lambda _exchange: until(held.is_set)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(deliver, street, receiver.hooks())
        until(lambda: bool(receiver.asked))
        sql(street.engine, "UPDATE outbox SET lease_until = clock_timestamp() - interval '1 s'")
        with receiving() as other:
            deliver(street, other.hooks())
            assert ids(other.asked) == ids(receiver.asked)
        row = the_row(street.engine)
        held.set()
        first.result(20)
    assert (row.delivered_at, row.error) == (NOON, None)
    assert the_row(street.engine) == row


def test_observe_mode_tells_nothing(serve: Serve, receiver: Receiver) -> None:
    """Neither what happened nor what would be said."""
    street = due(serve, "app", hooks=HOOKS, live=False)
    deliver(street, receiver.hooks())
    assert receiver.asked == []
    assert {row.error for row in sql(street.engine, "SELECT error FROM outbox")} == {notices.OBSERVED}


def test_neither_address_nor_secret_is_kept_or_logged(
    serve: Serve, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a row, not in a log, not in what an object shows; and of an answer nothing but its status."""
    street, hooks = due(serve, "sms", hooks=HOOKS), receiver.hooks()
    receiver.answer = answering(500)
    with caplog.at_level(logging.INFO):
        deliver(street, hooks)
        deliver(street, Hooks("http://127.0.0.1:9/canary", (SECRET,)), NOON + HOUR)
    for asked in receiver.asked:
        assert b"customer.example" not in asked.body
    kept = everything(street.engine)
    assert "the endpoint answered 500" in kept
    assert "the endpoint did not answer" in kept
    for shown in (kept, caplog.text, repr(hooks), str(hooks)):
        assert not re.search(r"canary|whsec_|customer\.example", shown)


# Notices by other channels


def due(serve: Serve, *channels: str, failed_at: datetime = NOON, hooks: tuple[str, ...] = (), **more: Any) -> Bench:
    """Return a bank with one case that has a first notice to say, by these channels."""
    failed = payment(decline=LOST, failed_at=failed_at)
    street = serve(Scripted([failed]), policy=Policy(channels=channels, hooks=hooks), **more)
    with street.engine.begin() as db:
        open_case(db, failed, None, street.policy, failed_at)
    street.work(failed_at)
    return street


def test_a_notice_by_sms_is_told_ready_to_be_said(serve: Serve, receiver: Receiver) -> None:
    """In the customer's language, with link, money and days; without an address."""
    street = due(serve, "sms")
    street.shown["customer"] = {"preferred_locales": ["de-DE"]}
    deliver(street, receiver.hooks())
    [said] = receiver.taken
    data = said["data"]
    assert (said["type"], said["timestamp"]) == ("notice.due", "2026-01-12T17:00:00Z")
    [owed] = data.pop("payments")
    text = data.pop("text")
    assert data.pop("subject").startswith("Ihre Zahlung über 19,99")
    names = {"channel": "sms", "notice": "first", "locale": "de", "customer_id": "cus_1", "account": None}
    assert data == names
    assert owed == {
        "payment_id": "in_1",
        "subscription_id": "sub_1",
        "amount_minor": 1999,
        "currency": "usd",
        "link": "https://invoice.stripe.example/i/1",
        "pay_by": "2026-02-08",
        "next_charge": None,
    }
    assert owed["link"] in text.splitlines()
    assert "@" not in text
    assert told(street.engine)[-1] == "delivered"


def test_each_channel_of_a_notice_keeps_its_own_hours(serve: Serve, receiver: Receiver, tmp_path: Path) -> None:
    """In the evening the mail leaves at once; the SMS waits for the next morning, and both leave once."""
    street = due(serve, "mail", "sms", failed_at=EVENING)
    deliver(street, receiver.hooks(), EVENING, tmp_path)
    assert ([file.name for file in (tmp_path / "notices").iterdir()], receiver.asked) == (["in_1-first.eml"], [])
    morning = one(street.engine, "SELECT due_at FROM outbox WHERE channel = 'sms'")
    assert EVENING + 12 * HOUR < morning < EVENING + DAY
    assert "put_off" in told(street.engine)
    deliver(street, receiver.hooks(), morning, tmp_path)
    assert [each["data"]["channel"] for each in receiver.taken] == ["sms"]
    sent = {tuple(row) for row in sql(street.engine, "SELECT channel, delivered_at FROM outbox")}
    assert sent == {("mail", EVENING), ("sms", morning)}


def test_an_endpoint_that_fails_does_not_hold_up_the_mail(serve: Serve, receiver: Receiver, tmp_path: Path) -> None:
    """Each channel is a message of its own."""
    street = due(serve, "sms", "mail", "app")
    receiver.answer = answering(500)
    deliver(street, receiver.hooks(), NOON, tmp_path)
    rows = sql(street.engine, "SELECT channel, due_at IS NULL AS done FROM outbox ORDER BY channel")
    assert [tuple(row) for row in rows] == [("app", False), ("mail", True), ("sms", False)]


def test_one_message_tells_of_several_invoices(serve: Serve, receiver: Receiver) -> None:
    """What is paid meanwhile is left out when it leaves."""
    third = replace(SECOND, payment_id="in_3", subscription_id="sub_3")
    street = speaking(serve, SECOND, third, policy=replace(SOON, channels=("app",)))
    assert one(street.engine, "SELECT count(*) FROM outbox") == 3
    street.charge_elsewhere(SPOKEN, "in_3")
    deliver(street, receiver.hooks(), SPOKEN)
    [said] = receiver.taken
    assert [each["payment_id"] for each in said["data"]["payments"]] == ["in_1", "in_2"]
    assert said["data"]["text"].count("https://invoice.stripe.example/i/") == 2
    results = {tuple(row) for row in sql(street.engine, "SELECT case_id, error FROM outbox")}
    assert results == {(1, None), (2, None), (3, notices.OVER)}


def test_a_notice_of_a_paid_invoice_is_not_told(serve: Serve, receiver: Receiver) -> None:
    """No event has come yet, but the reading at the moment of telling knows."""
    street = due(serve, "sms")
    street.shown["invoice"] = {"status": "paid"}
    deliver(street, receiver.hooks())
    assert (receiver.asked, the_row(street.engine).error) == ([], notices.OVER)


def test_a_last_notice_leads_nowhere(serve: Serve, receiver: Receiver) -> None:
    """Nothing is to be paid any more: no link, no day."""
    street = serve()
    street.charge_elsewhere(NOON)
    closed = {"state": "recovered", "closed_at": NOON, "due_at": None, "recovered_by": "after_contact"}
    add_notice(street.engine, add_case(street.engine, **closed), name="thanks", channel="app")
    deliver(street, receiver.hooks())
    [said] = receiver.taken
    [paid] = said["data"]["payments"]
    assert said["data"]["notice"] == "thanks"
    assert [paid[name] for name in ("amount_minor", "link", "pay_by", "next_charge")] == [1999, None, None, None]
    assert "http" not in said["data"]["text"]


def test_who_is_not_to_be_written_to_gets_no_sms_either(serve: Serve, receiver: Receiver) -> None:
    """Whoever named the customer meant every channel; the row tells why."""
    street = due(serve, "sms", "app")
    sql(street.engine, "INSERT INTO suppressions (customer_id, why, at) VALUES ('cus_1', 'by_hand', now())")
    deliver(street, receiver.hooks())
    assert receiver.asked == []
    kept = {tuple(row) for row in sql(street.engine, "SELECT due_at, error FROM outbox")}
    assert kept == {(None, "the customer is not to be written to")}


# Who waits for whom


def hints(street: Bench, now: datetime = START) -> list[str]:
    """Sweep once; return the tasks that were sent."""
    sent: list[str] = []
    sweep.tick(street.desk(now), lambda task, _number, _token: sent.append(task))
    return sorted(sent)


def test_few_webhooks_are_under_way_however_many_are_due(serve: Serve) -> None:
    """Mail that is due later than all of them leaves at once; whoever is done with one sees to the next."""
    street = serve()
    case_id = add_case(street.engine, due_at=START + DAY)
    for number in range(300):
        add_notice(street.engine, case_id, kind="hook", name=f"{number}", channel="hook", due_at=START - HOUR)
    add_notice(street.engine, case_id)
    assert hints(street) == ["dunning.deliver", "dunning.tell", "dunning.tell"]
    assert hints(street) == []
    sql(street.engine, "UPDATE outbox SET lease_token = NULL, lease_until = NULL, due_at = NULL WHERE name = '0'")
    taken: list[int] = []
    assert sweep.tell(street.desk(START), lambda _task, number, _token: taken.append(number)) == 1
    assert len(taken) == 1


def test_nothing_is_told_until_a_restore_is_explained(serve: Serve) -> None:
    """Old rows may have been told long ago."""
    street = opened(serve)
    stops.stop(street.engine, stops.RESTORED, "from a backup", START)
    assert sweep.tell(street.desk(START), lambda *_hint: None) == 0
    with street.engine.begin() as db:
        stops.lift(db, stops.RESTORED)
    assert sweep.tell(street.desk(START), lambda *_hint: None) == 1


def test_a_number_that_is_given_again_after_a_restore_makes_another_id(serve: Serve, receiver: Receiver) -> None:
    """The receiver must not take a new message for one that it has."""
    street = opened(serve)
    deliver(street, receiver.hooks())
    sql(street.engine, "UPDATE outbox SET at = :at, due_at = :at, tries = 0, delivered_at = NULL", at=NOON)
    deliver(street, receiver.hooks())
    assert len(set(ids(receiver.asked))) == 2


# Settings


def test_address_and_secret_are_read_from_the_settings() -> None:
    """Both are needed."""
    both = Settings.model_validate({"hook_url": "https://crm.shop.example/x?y=1", "hook_secret": f"{SECRET},{OTHER}"})
    assert Hooks.from_settings(both) == Hooks("https://crm.shop.example/x?y=1", (SECRET, OTHER))
    assert Hooks.from_settings(Settings.model_validate({"hook_secret": SECRET})) is None
    assert Hooks.from_settings(Settings.model_validate({"hook_url": "http://localhost:8/"})) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOOK_URL", "http://canary.example/"),
        ("HOOK_URL", "https://canary@crm.example/"),
        ("HOOK_URL", "ftp://canary.example"),
        ("HOOK_URL", "https://"),
        ("HOOK_URL", "https://crm.example/a canary"),
        ("HOOK_SECRET", "canary"),
        ("HOOK_SECRET", "whsec_canary"),
        ("HOOK_SECRET", f"whsec_{b64encode(b'canary').decode()}"),
        ("HOOK_SECRET", f"whsec_{b64encode(b'c' * 65).decode()}"),
        ("HOOK_SECRET", f"{SECRET},canary"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A plain address, a short secret, or one that is no base64."""
    monkeypatch.setenv(f"DUNNING_{name}", value)
    with pytest.raises(SettingsError, match=rf"^DUNNING_{name}: expected (https|whsec)") as refused:
        load_settings()
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("policy", ['hooks = ["case.opened"]', 'channels = ["mail", "sms"]', 'channels = ["app"]'])
@pytest.mark.parametrize("given", [{}, {"DUNNING_HOOK_SECRET": SECRET}, {"DUNNING_HOOK_URL": "https://crm.example"}])
def test_a_policy_that_has_nobody_to_tell_stops_the_start(
    commands: Callable[..., Any], tmp_path: Path, policy: str, given: dict[str, str]
) -> None:
    """In one line that names what is missing, before any server is started."""
    (tmp_path / "policy.toml").write_text(policy)
    done = commands("up", DUNNING_POLICY=str(tmp_path / "policy.toml"), DUNNING_HOME=str(tmp_path / "home"), **given)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"Error: webhooks to you: the policy wants .* is not set; set it, .*\n", done.stderr)
    assert all(name in done.stderr for name in {"DUNNING_HOOK_URL", "DUNNING_HOOK_SECRET"} - set(given))
    assert SECRET not in done.stderr


def test_the_doctor_tells_what_is_told_to_whom() -> None:
    """It fails where the worker would not start, and only there."""
    nobody = load_settings()
    assert checks.hooks(nobody, Policy.default()).ok
    wants = Policy(hooks=("case.lost",), channels=("mail", "sms"))
    found = checks.hooks(nobody, wants)
    assert (found.ok, found.detail.startswith("the policy wants case.lost, notices by sms told")) == (False, True)
    both = Settings.model_validate({"hook_url": "https://crm.shop.example", "hook_secret": SECRET})
    assert checks.hooks(both, wants).ok


# What the page shows


def test_the_example_of_the_page_takes_what_we_send_and_nothing_else(
    serve: Serve, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A merchant can copy it: it acts once on each message, and refuses what is forged."""
    [example] = re.findall(r"```python\n(.*?)```", (REPO / "docs/webhooks.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)  # noqa: S102 - our own page
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    deliver(opened(serve), receiver.hooks())
    [asked] = receiver.asked
    assert [names["receive"](asked.headers, asked.body) for _ in range(2)] == [200, 200]
    assert capsys.readouterr().out.count("case.opened ") == 1
    assert names["receive"](asked.headers, asked.body + b" ") == 401
    assert names["receive"]({}, b"") == 401


def test_the_page_tells_every_hook() -> None:
    """None is to be found out by trying."""
    page = (REPO / "docs/webhooks.md").read_text(encoding="utf-8")
    assert [name for name in (*HOOKS, "notice.due") if f"`{name}`" not in page] == []
