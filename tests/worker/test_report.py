"""Does a report tell what happened, to the case and the cent, in every form? Checked by hand on eight cases."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from sqlalchemy import Engine, event

from schedules.places import COUNTRY_OF_ZONE, ZONES_OF_COUNTRY
from tests.worker.builders import DAY, HOUR, START, add_attempt, add_case, add_notice, sql
from worker.intervals import newcombe, wilson
from worker.locales import money
from worker.models import UNCERTAIN
from worker.report import Report, make_report, spreadsheet
from worker.report import page as report_page
from worker.report.sql import DIMENSIONS, Question

Operate = Callable[..., CompletedProcess[str]]
LATER = START + 100 * DAY
SECOND = timedelta(seconds=1)


def card(country: str, brand: str, funding: str) -> dict[str, str]:
    """A card as a case keeps it."""
    return {"country": country, "brand": brand, "funding": funding}


US, DE, JP = card("US", "visa", "debit"), card("DE", "visa", "credit"), card("JP", "jcb", "credit")
# Each case: number, customer, amount, currency, failed, card, ends as, after, what else.
TOWN: list[tuple[int, int, int, str, datetime, dict[str, str], str | None, timedelta, dict[str, Any]]] = [
    (1, 1, 1000, "usd", START, US, "silent_retry", DAY, {"tenure_days": 30, "time_zone": "America/New_York"}),
    (2, 2, 2000, "usd", START, US, "after_contact", 10 * DAY, {"tenure_days": 90}),
    (3, 3, 3000, "usd", START, card("US", "mastercard", "credit"), "lost", 28 * DAY, {"tenure_days": 365}),
    (4, 4, 5000, "eur", START, DE, "canceled", 6 * DAY, {"arm": "b"}),
    (5, 5, 700, "eur", START + 8.5 * HOUR, card("DE", "visa", "debit"), "card_update", 30 * DAY, {"tenure_days": 89}),
    (6, 6, 1200, "jpy", START, JP, "customer", 30 * DAY + SECOND, {"tenure_days": 364, "arm": "b"}),
    (7, 7, 9999, "usd", START + DAY, {}, None, DAY, {"arm": "control"}),
    (8, 1, 500, "usd", START + 2 * DAY, US, "lost", 28 * DAY, {"tenure_days": 30}),
]
CLASSES = {3: "never", 5: "stale_credential", 6: None, 7: None}
MORE: dict[int, dict[str, Any]] = {3: {"arm": "b", "time_zone": "Asia/Tokyo"}, 5: {"arm": "control"}}
ENDINGS = ("lost", "canceled", "released")


@pytest.fixture
def town(engine: Engine) -> Engine:
    """Give a database of eight cases and all that happened to them."""
    settle(engine)
    return engine


def settle(engine: Engine) -> None:
    """Store the eight cases."""
    for number, customer, amount, currency, failed, shown, end, after, more in TOWN:
        state = end if end in ENDINGS else "recovered" if end else "silent"
        closed = {"closed_at": failed + after, "due_at": None} if end else {}
        back = {"recovered_by": end} if state == "recovered" else {}
        rest = {"decline_class": CLASSES.get(number, "retry_later"), **more, **MORE.get(number, {}), **closed, **back}
        known = {"payment_id": f"in_{number}", "customer_id": f"cus_{customer}", "failed_card": shown, "state": state}
        add_case(engine, **known, amount_minor=amount, currency=currency, failed_at=failed, **rest)
    for case_id, states in {1: "s", 2: "dds", 4: "d", 5: "s", 8: "dd"}.items():
        for number, state in enumerate(states, 1):
            charge(engine, case_id, number, {"s": "succeeded", "d": "declined"}[state])
    for case_id, day in ((1, 2), (2, 8), (3, 1), (3, 5), (4, 5)):
        at = START + day * DAY
        add_notice(engine, case_id, name=f"day_{day}", at=at, delivered_at=at, due_at=None)


def charge(engine: Engine, case_id: int, number: int, state: str, **changes: Any) -> None:
    """Store a charge with its answer, made so many days after the start."""
    row = {"payment_id": f"in_{case_id}", "idempotency_key": f"{case_id}-{number}", "settled_at": START}
    add_attempt(engine, case_id, number=number, state=state, **{**row, "at": START + number * DAY, **changes})


def remember(engine: Engine, case_id: int, what: str, **detail: Any) -> None:
    """Write a line into the history of a case."""
    statement = "INSERT INTO history (case_id, at, what, detail) VALUES (:id, :at, :what, CAST(:detail AS jsonb))"
    sql(engine, statement, id=case_id, at=START, what=what, detail=json.dumps(detail))


def ask(engine: Engine, now: datetime = LATER, **question: Any) -> Report:
    """Make a report."""
    with engine.connect() as db:
        return make_report(db, now, Question(**question))


# What is counted


def test_the_whole_is_counted_to_the_case_and_the_cent(town: Engine) -> None:
    """Every count of the eight cases, as one can count them in the table above."""
    told = ask(town, attempt_cost={"usd": Decimal("0.155"), "eur": Decimal("0.1")}).as_json()["total"]
    value, written = told.pop("value"), told.pop("contacted")
    assert told.pop("recovered_interval") == tuple(round(end, 4) for end in wilson(3, 8) or ())
    assert told == {
        "group": "all",
        "cases": 8,
        "states": {"silent": 1, "recovered": 4, "lost": 2, "canceled": 1},
        "open": 1,
        "recovered_count": 3,
        "recovered_share": 0.375,
        "recovered": {"card_update": 1, "silent_retry": 1, "after_contact": 1, "provider": 0, "customer": 0},
        "recovered_late": 1,
        "canceled_share": 0.125,
        "silent": {"cases": 5, "recovered": 2, "share": 0.4},
        "days_to_recovery": {"p25": 5.5, "p50": 10.0, "p75": 20.0, "p90": 26.0},
        "attempts": 8,
        "attempts_per_recovery": 2.6667,
        "off_hours_avoided": 0,
        "notices": 5,
        "notices_per_case": 0.625,
        "taken_back": 0,
    }
    assert written == {
        "cases": 3,
        "recovered": 1,
        "share": 0.3333,
        "canceled_after": 1,
        "canceled_after_share": 0.3333,
    }
    none = dict.fromkeys(("card_update", "silent_retry", "after_contact", "provider", "customer"), 0)
    usd = {"cases": 5, "failed": 16499, "recovered": 3000, "share": 0.1818, "attempts": 6, "cost": 93}
    eur = {"cases": 2, "failed": 5700, "recovered": 700, "share": 0.1228, "attempts": 2, "cost": 20}
    jpy = {"cases": 1, "failed": 1200, "recovered": 0, "share": 0.0, "attempts": 0, "cost": None}
    assert value == {
        "usd": {**none, **usd, "silent_retry": 1000, "after_contact": 2000},
        "eur": {**none, **eur, "card_update": 700},
        "jpy": {**none, **jpy},
    }


GROUPS = {
    "class": [("retry_later", 4, 2), ("never", 1, 0), ("stale_credential", 1, 1), ("unknown", 2, 0)],
    "country": [("US", 4, 2), ("DE", 2, 1), ("JP", 1, 0), ("unknown", 1, 0)],
    "network": [("visa", 5, 3), ("jcb", 1, 0), ("mastercard", 1, 0), ("unknown", 1, 0)],
    "issuer": [
        ("US visa debit", 3, 2),
        ("DE visa credit", 1, 0),
        ("DE visa debit", 1, 1),
        ("JP jcb credit", 1, 0),
        ("US mastercard credit", 1, 0),
        ("unknown", 1, 0),
    ],
    "amount": [
        ("below 10", 2, 1),
        ("10 to 25", 2, 2),
        ("25 to 50", 1, 0),
        ("50 to 100", 2, 0),
        ("1000 and more", 1, 0),
    ],
    "tenure": [("0 to 3 months", 3, 2), ("3 to 12 months", 2, 1), ("over 12 months", 1, 0), ("unknown", 2, 0)],
    "policy": [("a", 3, 2), ("b", 3, 0), ("control", 2, 1)],
    "segment": [("(usual)", 8, 3)],
    "weekday": [("Monday", 4, 2), ("Tuesday", 2, 1), ("Wednesday", 1, 0), ("unknown", 1, 0)],
    "hour": [("00:00", 2, 1), ("10:00", 4, 2), ("16:00", 1, 0), ("unknown", 1, 0)],
}


@pytest.mark.parametrize("by", list(DIMENSIONS))
def test_groups_are_told_apart_and_add_up_to_the_whole(town: Engine, by: str) -> None:
    """The groups as counted by hand, in order; every count, and every amount, is that of the whole once added up."""
    found = ask(town, by=by)
    assert [(each.group, each.cases, each.recovered_count) for each in found.groups] == GROUPS[by]
    for name in ("cases", "late", "attempts", "waited", "notices", "left_after", "taken_back", "unfinished"):
        assert sum(getattr(each, name) for each in found.groups) == getattr(found.total, name)
    for currency, total in found.total.value.items():
        own = [each.value[currency] for each in found.groups if currency in each.value]
        assert sum(each.failed for each in own) == total.failed
        assert sum(sum(each.recovered.values()) for each in own) == sum(total.recovered.values())


def test_the_first_day_counts_and_the_last_one_does_not(engine: Engine) -> None:
    """Failures at the first instant of a day, and at the last one before it."""
    midnight = datetime(2026, 2, 1, tzinfo=UTC)
    add_case(engine, payment_id="in_1", failed_at=midnight - timedelta(microseconds=1))
    add_case(engine, payment_id="in_2", failed_at=midnight)
    assert ask(engine, begin=midnight).total.cases == 1
    assert ask(engine, end=midnight).total.cases == 1
    assert ask(engine, begin=midnight - DAY, end=midnight + DAY).total.cases == 2
    assert ask(engine, begin=midnight + DAY).total.cases == 0


def test_figures_are_final_once_every_case_has_had_its_30_days(town: Engine) -> None:
    """Of a cohort with an end 30 days after it, else 30 days after the last failure; to the second."""
    last, end = START + 2 * DAY, datetime(2026, 1, 13, tzinfo=UTC)
    for final_at, question in ((last + 30 * DAY, {}), (end + 30 * DAY, {"end": end})):
        assert not ask(town, final_at - SECOND, **question).final
        assert ask(town, final_at, **question).final
        assert ask(town, final_at, **question).final_at == final_at


def test_an_empty_cohort_divides_by_nothing(engine: Engine) -> None:
    """No case: no share, no group, no picture, and nothing final."""
    found = ask(engine, by="class")
    told = found.as_json()
    assert (told["total"]["cases"], told["total"]["recovered_share"], told["total"]["days_to_recovery"]) == (
        0,
        None,
        None,
    )
    assert (told["groups"], told["arms"], told["lifts"], told["final"], told["final_at"]) == ([], [], [], False, None)
    assert "No cases." in report_page.page(found)
    assert len(spreadsheet.table(found).splitlines()) == 2


def test_only_charges_that_left_count_as_off_hours_avoided(town: Engine) -> None:
    """Those that had waited for a bank, whatever it answered; not one that is under way, or others made."""
    charge(town, 7, 1, "declined", waited=True)
    charge(town, 7, 2, "foreign", waited=True)
    charge(town, 8, 9, "not_executed", waited=True)
    assert ask(town).total.waited == 1


def test_what_was_taken_back_counts_once_for_each_case_that_came_back(town: Engine) -> None:
    """A refund and a dispute of one case; the one of a case that came back too late is not in the share either."""
    for case_id, what in ((2, "refunded"), (2, "disputed"), (6, "refunded")):
        remember(town, case_id, what)
    assert ask(town).total.taken_back == 1


def test_a_notice_that_perhaps_arrived_counts_and_one_after_the_end_is_no_contact(town: Engine) -> None:
    """Case 1 was thanked after it had come back; case 5 was perhaps told; of case 8 the message was given up."""
    assert ask(town).total.contacted.whole == 3
    add_notice(town, 5, error=UNCERTAIN, due_at=None)
    add_notice(town, 8, error="the address bounced", due_at=None)
    total = ask(town).total
    assert (total.contacted.whole, total.contacted.part, total.notices) == (4, 2, 6)


def test_a_cancelation_within_seven_days_after_a_notice_counts_against_it(town: Engine) -> None:
    """Case 4 left a day after; had it been eight days, the notice would not have been it."""
    assert ask(town).total.left_after == 1
    sql(town, "UPDATE outbox SET delivered_at = delivered_at - interval '7 days' WHERE case_id = 4")
    assert ask(town).total.left_after == 0


# How sure


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_the_interval_of_a_difference_is_the_published_one(
    one: tuple[int, int], other: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe 1998, Statistics in Medicine 17:873, table II, method 10."""
    found = newcombe(one, other)
    assert found
    assert [round(end, 4) for end in found] == [low, high]


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_share_is_the_published_one(part: int, whole: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (Wilson's score)."""
    found = wilson(part, whole)
    assert found
    assert [round(end, 4) for end in found] == [low, high]


def test_arms_are_compared_by_customers_and_not_by_cases(town: Engine) -> None:
    """The first customer has two cases, of which the first counts; each arm against control, and B against A."""
    found = ask(town)
    assert [(arm.name, arm.back.part, arm.back.whole) for arm in found.arms] == [
        ("a", 2, 2),
        ("b", 0, 3),
        ("control", 1, 2),
    ]
    told = [(lift.of.name, lift.over.name, lift.points) for lift in found.lifts]
    assert told == [("a", "control", 50.0), ("b", "control", -50.0), ("b", "a", -100.0)]
    low, high = newcombe((2, 2), (1, 2)) or (0, 0)
    assert found.lifts[0].interval == (round(100 * low, 2), round(100 * high, 2))


def test_one_arm_alone_shows_no_lift(engine: Engine) -> None:
    """Without an experiment there is nothing to compare."""
    add_case(engine)
    assert ask(engine).lifts == []


def test_time_is_told_in_days_then_in_weeks_then_in_months(town: Engine) -> None:
    """Six cases failed on the first day, of which three came back; how long it took is told by days."""
    found = ask(town)
    assert found.step == "day"
    assert [(each.begins.day, each.back.part, each.back.whole) for each in found.periods] == [
        (12, 3, 6),
        (13, 0, 1),
        (14, 0, 1),
    ]
    assert [found.back_by_day[day] for day in (0, 1, 9, 10, 29, 30)] == [
        (0, 0),
        (1, 1),
        (9, 1),
        (10, 2),
        (29, 2),
        (30, 3),
    ]
    add_case(town, payment_id="in_90", failed_at=START + 60 * DAY)
    assert (ask(town).step, ask(town).periods[0].back.whole) == ("week", 8)
    add_case(town, payment_id="in_91", failed_at=START + 900 * DAY)
    assert (ask(town).step, ask(town).periods[0].back.whole) == ("month", 8)


def test_the_database_knows_every_clock_of_ours(engine: Engine) -> None:
    """Weekdays and hours are told by its own table of time zones."""
    names = {name for zones in ZONES_OF_COUNTRY.values() for name in zones} | set(COUNTRY_OF_ZONE)
    assert names <= {row.name for row in sql(engine, "SELECT name FROM pg_timezone_names")}


def test_the_lines_that_are_counted_are_found_by_their_index(town: Engine) -> None:
    """The predicates of the statement are those of the indexes, or a long history would be read in whole."""
    lines = "SELECT 1 + n % 8, now(), 'planned', '{}' FROM generate_series(1, 5000) n"
    sql(town, f"INSERT INTO history (case_id, at, what, detail) {lines}")
    sql(town, "ANALYZE history")
    sent: list[tuple[str, Any]] = []

    def note(_db: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        sent.append((statement, values))

    event.listen(town, "before_cursor_execute", note)
    try:
        ask(town)
    finally:
        event.remove(town, "before_cursor_execute", note)
    [(statement, values)] = [each for each in sent if "FROM history" in each[0]]
    with town.begin() as db:
        plan = "\n".join(row[0] for row in db.exec_driver_sql(f"EXPLAIN {statement}", values))
    assert "ix_history_taken_back" in plan


# How it is told


class Page(HTMLParser):
    """The tables of a page by their id, and everything in it that a browser would fetch or run."""

    def __init__(self, page: str) -> None:
        """Read a page."""
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.foreign: list[str] = []
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a table, a row or a cell; note what would leave the page."""
        told = dict(attrs)
        self.foreign += [f"{tag} {name}" for name in told if name.endswith(("href", "src")) or name.startswith("on")]
        self.foreign += [tag] if tag in ("script", "link", "img", "image", "iframe", "use") else []
        if tag == "table":
            self.rows = self.tables[str(told["id"])] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self.inside = tag in ("td", "th")

    def handle_endtag(self, _tag: str) -> None:
        """End a cell."""
        self.inside = False

    def handle_data(self, data: str) -> None:
        """Take the text of a cell."""
        if self.inside:
            self.rows[-1][-1] += data


def test_the_page_holds_the_numbers_of_the_json(town: Engine) -> None:
    """Every table of the page, cell by cell, from the same report told as JSON."""
    found = ask(town, by="country", attempt_cost={"usd": Decimal("0.155")})
    told, page = found.as_json(), Page(report_page.page(found))
    total = told["total"]
    means = [[row[1] for row in page.tables["means"][1:]], [*map(str, total["recovered"].values()), "3"]]
    assert means[0] == means[1]
    for row in page.tables["money"][1:]:
        value = total["value"][row[0].lower()]
        amounts = [value[name] for name in ("failed", "recovered", *total["recovered"])]
        assert [row[2], row[3], *row[5:10]] == [money(amount, row[0]) for amount in amounts]
        assert row[11] == ("not known" if value["cost"] is None else money(value["cost"], row[0]))
    for row, group in zip(page.tables["groups"][1:], [*told["groups"], total], strict=True):
        share = f"{group['recovered_share']:.1%}"
        assert row[:5] == [group["group"], *(str(group[name]) for name in ("cases", "open", "recovered_count")), share]
    assert [row[:3] for row in page.tables["periods"][1:]] == [
        [each["begins"], str(each["cases"]), str(each["recovered_count"])] for each in told["over_time"]["periods"]
    ]
    by_day = [str(sum(counts)) for counts in zip(*told["curve"].values(), strict=True)]
    assert [row[1] for row in page.tables["curve"][1:]] == by_day
    assert [row[1:3] for row in page.tables["contact"][1:]] == [
        [str(total[name]["cases"]), str(total[name]["recovered"])] for name in ("silent", "contacted")
    ]
    assert [row[1:3] for row in page.tables["arms"][1:4]] == [
        [str(arm["customers"]), str(arm["recovered"])] for arm in told["arms"]
    ]


def test_the_page_fetches_nothing_and_runs_nothing(town: Engine) -> None:
    """No script, no link, no address but the name of the SVG language; whatever a provider calls a network."""
    hostile = "<script src=//evil.example></script>"
    sql(town, "UPDATE cases SET failed_card = json_build_array(NULL, CAST(:brand AS text))", brand=hostile)
    made = report_page.page(ask(town, by="network"))
    assert Page(made).foreign == []
    assert set(re.findall(r"[a-z]+://[^\s\"'<]+", made)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "url(" not in made
    assert "@import" not in made
    assert Page(made).tables["groups"][1][0] == hostile


def test_the_page_says_that_figures_are_preliminary(town: Engine) -> None:
    """With the day from which on they are final; and so do the terminal's heading and the other forms."""
    early = ask(town, START + 5 * DAY)
    assert "Preliminary until 2026-02-13" in report_page.page(early)
    assert "Final" in report_page.page(ask(town))
    assert (early.as_json()["final"], early.as_json()["final_at"]) == (False, "2026-02-13T15:00:00Z")
    [row] = csv.DictReader(io.StringIO(spreadsheet.table(early)))
    assert (row["final"], row["final_at"]) == ("False", "2026-02-13T15:00:00Z")


def test_a_fragment_is_the_middle_of_the_page(town: Engine) -> None:
    """Another page can hold it: it has no head of its own, and the style is told apart."""
    found = ask(town)
    made = report_page.fragment(found)
    assert made.startswith("<article")
    assert made in report_page.page(found)
    assert report_page.style() in report_page.page(found)


def test_a_spreadsheet_has_one_row_for_each_group_and_the_whole_as_the_last(town: Engine) -> None:
    """Means, and money by currency, are columns; what has no value is empty."""
    found = ask(town, by="class", attempt_cost={"usd": Decimal(1)})
    rows = list(csv.DictReader(io.StringIO(spreadsheet.table(found))))
    assert [(row["group"], row["cases"], row["recovered"]) for row in rows] == [
        *((name, str(cases), str(back)) for name, cases, back in GROUPS["class"]),
        ("all", "8", "3"),
    ]
    assert [row["recovered_silent_retry"] for row in rows] == ["1", "0", "0", "0", "1"]
    assert [row["failed_eur"] for row in rows] == ["5000", "", "700", "", "5700"]
    assert [rows[-1][name] for name in ("recovered_usd", "cost_usd", "cost_eur", "days_p50")] == [
        "3000",
        "600",
        "",
        "10.0",
    ]


# The command


def test_the_command_answers_in_every_form(operate: Operate, engine: Engine, tmp_path: Path) -> None:
    """Text, JSON, CSV and a page: one cohort, the same counts, and each says that it is preliminary."""
    settle(engine)
    cohort = ("report", "--from", "2026-01-12", "--to", "2026-01-13", "--by", "country")
    plain = operate(*cohort).stdout
    assert plain.startswith("Payments that failed from 2026-01-12 on and before 2026-01-13 (UTC)")
    assert "preliminary until 2026-02-12" in plain
    assert re.search(r"^US +3 +0 +2 +66\.7% ", plain, re.MULTILINE)
    told = json.loads(operate(*cohort, "--json").stdout)
    assert (told["from"], told["to"], told["by"]) == ("2026-01-12", "2026-01-13", "country")
    assert [(each["group"], each["cases"]) for each in told["groups"]] == [("US", 3), ("DE", 2), ("JP", 1)]
    rows = list(csv.DictReader(io.StringIO(operate(*cohort, "--csv").stdout)))
    assert [row["cases"] for row in rows] == ["3", "2", "1", "6"]
    file = tmp_path / "report.html"
    assert "preliminary until 2026-02-12" in operate(*cohort, "--html", str(file)).stdout
    assert [row[1] for row in Page(file.read_text(encoding="utf-8")).tables["groups"][1:]] == ["3", "2", "1", "6"]


def test_the_command_tells_an_a_a_check_by_the_policy(operate: Operate, engine: Engine, tmp_path: Path) -> None:
    """Without a rival both arms follow one policy; with one they do not."""
    settle(engine)
    assert "B over A (A/A: one policy)" in operate("report").stdout
    policy = tmp_path / "policy.toml"
    policy.write_text("[experiment]\nrival_percent = 50\n[rival]\nsilent_days = 3\n", encoding="utf-8")
    plain = operate("report", DUNNING_POLICY=str(policy)).stdout
    assert "B over A" in plain
    assert "A/A" not in plain


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--from", "2026-13-01"], "'--from': '2026-13-01' is no day"),
        (["--to", "yesterday"], "'--to': 'yesterday' is no day"),
        (["--to", "9999-12-31"], "'--to': '9999-12-31' is no day"),
        (["--from", "2026-02-01", "--to", "2026-01-31"], "'--to': 2026-01-31 does not come after --from 2026-02-01"),
        (["--from", "2026-02-01", "--to", "2026-02-01"], "'--to': 2026-02-01 does not come after --from 2026-02-01"),
        (["--by", "mood"], "'--by': 'mood' is not one of"),
        (["--attempt-cost", "USD"], "'--attempt-cost': 'USD': expected a currency and an amount"),
        (["--attempt-cost", "USD=-1"], "'--attempt-cost': 'USD=-1': expected a currency and an amount"),
        (["--attempt-cost", "QQQ=1"], "'--attempt-cost': 'QQQ=1': QQQ is no currency"),
        (["--attempt-cost", "USD=1", "--attempt-cost", "usd=2"], "'--attempt-cost': 'usd=2': usd is named twice"),
        (["--json", "--csv"], "--json, --csv and --html exclude one another"),
        (["--csv", "--html", "report.html"], "--json, --csv and --html exclude one another"),
        (["--html", "/nowhere/report.html"], "'--html': cannot write /nowhere/report.html: No such file"),
        (["--html", "/"], "'--html'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_by_the_name_of_its_option(operate: Operate, given: list[str], named: str) -> None:
    """One clear line, nothing on standard output, and exit code 2."""
    done = operate("report", *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
