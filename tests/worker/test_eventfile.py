"""Is every event of a file kept, whatever stands around it, and everything else reported with its line?"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import Engine

from schedules import Policy
from tests.worker.builders import JSON, START, event, failed_charge, invoice, json_lines, old_invoice, one
from worker.eventfile import Found, read_raw
from worker.ingest import BATCH, PROCESSES, Counts, ingest

GOOD, LAST = event("evt_good"), event("evt_last")
LONG = "".join(sha256(str(n).encode()).hexdigest() for n in range(200))  # no compression makes it fit


def take_in(engine: Engine, content: bytes) -> Counts:
    """Ingest a file and return what became of it."""
    counts = Counts()
    for _ in ingest(engine, Policy.default(), START, read_raw(io.BytesIO(content)), counts):
        pass
    return counts


def kept(engine: Engine) -> list[str]:
    """Return the ids of the stored events."""
    found: list[str] = one(engine, "SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM events")
    return found


def pretty(*values: JSON) -> bytes:
    """Return objects as people print them, one after the other."""
    return "\n".join(json.dumps(value, indent=2) for value in values).encode()


def listed(*values: JSON, indent: int | None = None, **more: Any) -> bytes:
    """Return an API list object."""
    return json.dumps({"object": "list", **more, "data": values}, indent=indent).encode()


FORMATS: dict[str, Callable[[JSON, JSON], bytes]] = {
    "json lines": json_lines,
    "one line without an end": lambda a, b: json_lines(a, b).rstrip(b"\n"),
    "a list": lambda a, b: json.dumps([a, b]).encode(),
    "a pretty list": lambda a, b: json.dumps([a, b], indent=2).encode(),
    "an API list": listed,
    "an API list with its url first": lambda a, b: listed(a, b, url="/v1/events", has_more=False),
    "a pretty API list": lambda a, b: listed(a, b, indent=4, has_more=True),
    "pretty objects in a row": pretty,
    "a byte order mark": lambda a, b: b"\xef\xbb\xbf" + json_lines(a, b),
    "a byte order mark and a list": lambda a, b: b"\xef\xbb\xbf" + json.dumps([a, b]).encode(),
    "windows lines": lambda a, b: json_lines(a, b).replace(b"\n", b"\r\n"),
    "pretty windows lines": lambda a, b: pretty(a, b).replace(b"\n", b"\r\n"),
    "blank lines": lambda a, b: b"\n\n" + json_lines(a, b"", b"  ", b),
    "two lists in a row": lambda a, b: json.dumps([a]).encode() + b"\n" + json.dumps([b]).encode(),
    "two API pages in a row": lambda a, b: listed(a) + b"\n" + listed(b),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_events(engine: Engine, name: str) -> None:
    """Both events are kept and nothing is rejected, in whatever form the provider or a person has saved them."""
    counts = take_in(engine, FORMATS[name](GOOD, LAST))
    assert counts.as_json() == {"new": 2, "duplicate": 0, "ignored": 0, "rejected": []}
    assert kept(engine) == ["evt_good", "evt_last"]


def test_one_object_is_a_file(engine: Engine) -> None:
    """One event by itself, on one line or on many."""
    assert take_in(engine, json.dumps(GOOD).encode()).new == 1
    assert take_in(engine, pretty(LAST)).new == 1


def test_both_shapes_of_an_invoice_are_kept_as_they_came(engine: Engine) -> None:
    """Before and after 2025-03-31; what is stored is what was sent."""
    old = event("evt_old", subject=old_invoice())
    assert take_in(engine, json_lines(GOOD, old)).new == 2
    assert one(engine, "SELECT payload FROM events WHERE id = 'evt_old'")["data"]["object"]["charge"] is not None


def deep(levels: int = 100_000) -> bytes:
    """Return JSON that is nested deeper than any parser goes."""
    return b'{"id": "evt_deep", "x": ' + b"[" * levels + b"]" * levels + b"}"


def bad(subject: JSON | None = None, **changes: Any) -> bytes:
    """Return a line with an event that is wrong in these fields."""
    return json.dumps(event("evt_bad", subject=subject, **changes)).encode()


EXPIRED = {"payment_method_details": {"type": "card", "card": {"exp_month": "July"}}}
BAD: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"hello", "not JSON"),
    "truncated": (json.dumps(GOOD).encode()[:60], "not JSON"),
    "a number": (b"7", "found a number"),
    "a text": (b'"evt_1"', "found a text"),
    "null": (b"null", "found null"),
    "no id": (bad(id=None), "without a valid 'id'"),
    "an id that is a number": (bad(id=5), "without a valid 'id'"),
    "an empty id": (bad(id=""), "without a valid 'id'"),
    "no type": (bad(type=None), "without a valid 'type'"),
    "no data": (bad(data=None), "without a valid 'data'"),
    "no object": (bad(data={"object": "in_1"}), "without a valid 'data.object'"),
    "unknown currency": (bad(invoice(currency="xxq")), "unknown 'currency': 'xxq'"),
    "no currency": (bad(invoice(currency=None)), "unknown 'currency': None"),
    "a subscription that is a list": (bad(old_invoice(subscription=[{}])), "without a valid 'subscription'"),
    "a code that is a list": (bad(old_invoice(charge=failed_charge(failure_code=[[]], outcome={}))), "valid 'code'"),
    "a month that is a text": (bad(old_invoice(charge=failed_charge(**EXPIRED))), "valid 'exp_month'"),
    "a depth of sixty": (bad(invoice(tax=json.loads("[" * 60 + "]" * 60))), "nested deeper than 50 levels"),
    "negative amount": (bad(invoice(amount_remaining=-1)), "wrong 'amount_remaining': -1"),
    "amount with a point": (bad(invoice(amount_remaining=19.99)), "wrong 'amount_remaining': 19.99"),
    "amount as text": (bad(invoice(amount_remaining="1999")), "wrong 'amount_remaining': '1999'"),
    "amount that is true": (bad(invoice(amount_remaining=True)), "wrong 'amount_remaining': True"),
    "no amount": (bad(invoice(amount_remaining=None)), "wrong 'amount_remaining': None"),
    "amount beyond money": (bad(invoice(amount_remaining=10**30)), "wrong 'amount_remaining': 1000"),
    "no customer": (bad(invoice(customer=None)), "without a valid 'customer'"),
    "no invoice id": (bad(invoice(id=None)), "without a valid 'id'"),
    "paid without an id": (bad(invoice(id=""), type="invoice.paid"), "without a valid 'id'"),
    "odd payments": (bad(invoice(payments={"data": [3]})), "unknown shape"),
    "not UTF-8": (bad().replace(b"cus_1", b"cus_\xff"), "not UTF-8"),
    "a NUL character": (bad(invoice(customer="cus_\0")), "without a valid 'customer'"),
    "a lone surrogate": (bad(invoice(customer="cus_\ud800")), "without a valid 'customer'"),
    "an account that is no id": (bad(account="acct_\0"), "without a valid 'account'"),
    "infinity": (bad(invoice(tax=float("inf"))), "not finite"),
    "no number": (bad(invoice(tax=float("nan"))), "not finite"),
    "nested too deeply": (deep(), "nested too deeply"),
    "a number of five thousand digits": (
        bad().replace(b"1999", b"9" * 5000),
        "not JSON: a number with too many digits",
    ),
    "created far away": (bad(created=10**18), "'created' is not a time in seconds"),
    "created in the past of cards": (bad(created=1), "'created' is not a time in seconds"),
    "created as text": (bad(created="yesterday"), "without a valid 'created'"),
    "an id that no index holds": (bad(id="evt_" + LONG), "'id'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_and_its_neighbours_are_kept(engine: Engine, name: str) -> None:
    """The reason and the line are reported, and the events before and behind it are stored."""
    line, reason = BAD[name]
    counts = take_in(engine, json_lines(GOOD, line, LAST))
    assert kept(engine) == ["evt_good", "evt_last"]
    [rejected] = counts.rejected
    assert rejected["line"] == 2
    assert reason in rejected["reason"]


@pytest.mark.parametrize(
    "name", ["not JSON", "truncated", "no id", "not UTF-8", "negative amount", "nested too deeply"]
)
def test_a_bad_first_line_does_not_spoil_the_file(engine: Engine, name: str) -> None:
    """The form of a file is not misjudged because its first line is broken."""
    line, reason = BAD[name]
    counts = take_in(engine, json_lines(line, GOOD, LAST))
    assert kept(engine) == ["evt_good", "evt_last"]
    assert [each["line"] for each in counts.rejected] == [1]
    assert reason in counts.rejected[0]["reason"]


def test_a_bad_event_within_a_list_does_not_spoil_the_list(engine: Engine) -> None:
    """The line told is where the bad value begins."""
    text = (
        b"[\n" + json.dumps(GOOD).encode() + b",\n17,\n" + BAD["no id"][0] + b",\n" + json.dumps(LAST).encode() + b"\n]"
    )
    counts = take_in(engine, text)
    assert kept(engine) == ["evt_good", "evt_last"]
    assert [each["line"] for each in counts.rejected] == [3, 4]


def test_a_list_of_numbers_holds_no_event(engine: Engine) -> None:
    """Each value is named; a list in front does not hide the events behind it."""
    counts = take_in(engine, b"[1, 2, 3]\n" + json.dumps(GOOD).encode())
    assert [each["reason"] for each in counts.rejected[:3]] == ["expected an event object, found a number"] * 3
    assert kept(engine) == ["evt_good"]


@pytest.mark.parametrize("whole", [json.dumps([GOOD, LAST]).encode(), listed(GOOD, LAST), pretty(GOOD, LAST)])
def test_a_truncated_file_keeps_what_was_whole(engine: Engine, whole: bytes) -> None:
    """The download broke off in the second event: the first is kept, and the file is not called complete."""
    counts = take_in(engine, whole[:-200])
    assert kept(engine) == ["evt_good"]
    assert len(counts.rejected) == 1


def test_an_empty_file_is_told(engine: Engine) -> None:
    """Nothing in it is not success."""
    for content in (b"", b" \n\n", b"\xef\xbb\xbf"):
        assert [each["reason"] for each in take_in(engine, content).rejected] == ["the file is empty"]


def test_other_types_are_counted_and_left(engine: Engine) -> None:
    """An event that this product does not listen to is no mistake of the file, even if it could not be stored."""
    counts = take_in(
        engine, json_lines(GOOD, event("evt_2", "plan.created"), event("evt_3", "plan.created", {"x": "\0"}))
    )
    assert (counts.new, counts.ignored, counts.ignored_types, counts.rejected) == (1, 2, {"plan.created": 2}, [])


@pytest.mark.parametrize("currency", ["jpy", "kwd", "usd", "clf"])
def test_every_currency_of_the_world_is_taken(engine: Engine, currency: str) -> None:
    """With none, two, three or four decimals: minor units are an integer in each."""
    assert take_in(engine, json_lines(event(subject=invoice(currency=currency, amount_remaining=1234)))).new == 1


def test_an_event_is_kept_once_within_a_file_and_over_files(engine: Engine) -> None:
    """Repeated lines and repeated files are counted as duplicates and change nothing."""
    changed = {**GOOD, "data": {"object": invoice(amount_remaining=5)}}
    first = take_in(engine, json_lines(GOOD, LAST, GOOD, changed))
    assert (first.new, first.duplicate) == (2, 2)
    stored = one(engine, "SELECT payload FROM events WHERE id = 'evt_good'")
    second = take_in(engine, json.dumps([GOOD, LAST]).encode())
    assert (second.new, second.duplicate) == (0, 2)
    assert one(engine, "SELECT payload FROM events WHERE id = 'evt_good'") == stored


def test_of_a_file_of_lines_a_few_batches_are_held(engine: Engine) -> None:
    """However long the file is: it is read as far as the processes that take it in have work."""
    line, read, seen, counts = json_lines(event("evt_1", "plan.created")), 0, 0, Counts()

    def lines() -> Iterator[Found]:
        nonlocal read
        for read in range(1, 12_001):
            yield Found(read, line)

    for number in ingest(engine, Policy.default(), START, lines(), counts):
        seen += number
        assert read <= seen + 2 * PROCESSES * BATCH
    assert (seen, counts.ignored) == (12_000, 12_000)


def test_batches_in_several_processes_tell_what_one_would(engine: Engine) -> None:
    """The same events in several batches are kept once and open one case; a line is refused with its number."""
    lines = [json_lines(event(f"evt_{n % 1_500}", subject=invoice(id=f"in_{n % 700}"))) for n in range(4_000)]
    lines[1_700] = b"{broken\n"
    counts = take_in(engine, b"".join(lines))
    assert (counts.new, counts.duplicate, [each["line"] for each in counts.rejected]) == (1_500, 2_499, [1_701])
    assert one(engine, "SELECT count(*) FROM cases") == 700


def test_what_no_database_takes_is_left_out_of_what_is_kept(engine: Engine) -> None:
    """Nobody reads a text or a name of a field that is no code, so a NUL or half a character there costs no event."""
    odd = event("evt_good", subject=invoice(**{"a\0": 1, "number": "\0", "receipt_number": "\ud800"}))
    assert take_in(engine, json_lines(odd)).new == 1
    shown = one(engine, "SELECT payload FROM events")["data"]["object"]
    assert (shown["number"], shown["receipt_number"], "a\0" in shown) == (None, None, False)


def test_a_file_of_fifty_megabytes_is_read_to_its_end(engine: Engine) -> None:
    """Fifty thousand events of all types as an account has them, one line broken far inside: ours are all kept."""
    filler = {"description": "x" * 800}
    ours = json.dumps(event("evt_NUMBER", subject=invoice(**filler))).encode()
    other = json.dumps(event("evt_NUMBER", "charge.succeeded", subject=invoice(**filler))).encode()
    count = 50 * 2**20 // len(ours) + 500

    def lines() -> Iterator[bytes]:
        for number in range(count):
            line = b"{broken" if number == count - 2 else ours if number % 50 == 0 else other
            yield line.replace(b"NUMBER", str(number).encode())

    content = b"\n".join(lines())
    assert len(content) >= 50 * 2**20
    counts = take_in(engine, content)
    assert [each["line"] for each in counts.rejected] == [count - 1]
    assert counts.new == len([number for number in range(0, count, 50) if number != count - 2])
    assert counts.new + counts.ignored == count - 1
