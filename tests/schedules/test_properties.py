"""Does every case keep every promise, whatever the bank answers, the customer does and the merchant chose?

A story is drawn at random and played step by step: each step is asked for again at its own instant (or late) and
then done, and between the steps the world goes on. The promises are checked against the facts by other means than
the decision uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from schedules import (
    Card,
    Charge,
    Close,
    Contact,
    Decline,
    Facts,
    FailedPayment,
    PastAttempt,
    Policy,
    Refresh,
    Step,
    Wait,
    next_step,
    plan_ahead,
)
from schedules.budgets import Limit
from schedules.declines import TABLE
from schedules.hours import Window, night
from schedules.learned import Model
from schedules.places import place_of
from schedules.policy import ENDINGS, WINDOWS, Rung
from schedules.proof import broken_promises
from schedules.rails import RAILS
from tests.schedules.builders import DAY, FAILED, MINUTE

MOST_MOMENTS = 3000


@dataclass(frozen=True)
class Happening:
    """Something in the world, ``after`` the failure: a card stored, the invoice paid, another case of the customer."""

    after: timedelta
    what: str
    card: Card | None = None


@dataclass(frozen=True)
class Story:
    """A payment, a policy, what the bank answers in turn (None: approved) and what else happens."""

    payment: FailedPayment
    policy: Policy
    answers: Sequence[Decline | None]
    happenings: Sequence[Happening]
    late: Sequence[timedelta]


@dataclass(frozen=True)
class Moment:
    """What was known and which step came out when the decision was asked at ``now``."""

    facts: Facts
    now: datetime
    step: Step


class World:
    """What is true, of which the case knows what it has read."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.stored = story.payment.card
        self.entered: datetime | None = None
        self.uses: dict[str | None, tuple[datetime, ...]] = {self.stored.fingerprint: (story.payment.failed_at,)}
        self.answers = iter(story.answers)
        self.facts = Facts(story.payment, self.stored, uses=self.uses[self.stored.fingerprint])

    def happen(self, happening: Happening, now: datetime) -> None:
        """Let something happen of which the case may or may not be told."""
        match happening.what:
            case "updated":
                self.stored, self.entered = happening.card or self.stored, None
            case "entered":
                self.stored, self.entered = happening.card or self.stored, now
                self.facts = replace(self.facts, refreshed_at=None)
            case "paused" | "resumed":
                self.facts = replace(self.facts, paused=happening.what == "paused")
            case "noticed":
                self.facts = replace(self.facts, customer_contacts=(*self.facts.customer_contacts, now))
            case "asked":
                self.facts = replace(self.facts, asked_at=now)
            case "used":
                self._use(self.facts.card, now)
            case "retried" | "given_up":
                self.facts = replace(self.facts, retried_elsewhere=happening.what == "retried")
            case ended:
                self.facts = replace(self.facts, ended=ended)

    def do(self, step: Step) -> None:
        """Carry out a step that is due."""
        match step:
            case Refresh(at):
                uses = self.uses.get(self.stored.fingerprint, ())
                self.facts = replace(
                    self.facts, card=self.stored, card_entered_at=self.entered, refreshed_at=at, uses=uses
                )
            case Charge(at, attempt):
                self._use(self.facts.card, at)
                answer = next(self.answers, self.story.payment.decline)
                if answer is None:
                    self.facts = replace(self.facts, ended="paid")
                else:
                    tried = PastAttempt(attempt, at, self.facts.card, answer)
                    self.facts = replace(self.facts, attempts=(*self.facts.attempts, tried))
            case Contact(at):
                contacts = (*self.facts.customer_contacts, at)
                self.facts = replace(self.facts, contacted=(*self.facts.contacted, at), customer_contacts=contacts)

    def _use(self, card: Card, at: datetime) -> None:
        self.uses[card.fingerprint] = (*self.uses.get(card.fingerprint, ()), at)
        self.facts = replace(self.facts, uses=self.uses[card.fingerprint])


def play(story: Story) -> list[Moment]:
    """Every asking of the decision until the case is closed."""
    world, now, moments = World(story), story.payment.failed_at, list[Moment]()
    ahead = sorted(story.happenings, key=lambda happening: happening.after)
    late = [*story.late]
    while not (moments and isinstance(moments[-1].step, Close) and moments[-1].step.at <= now):
        assert len(moments) < MOST_MOMENTS, "no end"
        step = next_step(world.facts, story.policy, now)
        moments.append(Moment(world.facts, now, step))
        due = story.payment.failed_at + ahead[0].after if ahead else None
        if due is not None and due <= max(step.at, now):
            now = max(now, due)
            world.happen(ahead.pop(0), now)
        elif step.at > now:
            now = step.at + (late.pop() if late else timedelta(0))
        else:
            world.do(step)
    return moments


BRANDS = ("visa", "mastercard", "amex", "discover", "jcb", "us_bank_account", "sepa_debit", "upi", "pix", None)
CODES = st.sampled_from([*sorted({code for _, code in TABLE}), "brand_new", "4711"])
SOME_CODE = st.none() | CODES
DECLINES = st.builds(Decline, SOME_CODE) | st.builds(
    Decline,
    SOME_CODE,
    SOME_CODE,
    SOME_CODE,
    SOME_CODE,
    st.sampled_from([None, "blocked", "issuer_declined"]),
    SOME_CODE,
)
USUAL = st.sampled_from(["insufficient_funds", "do_not_honor", "issuer_not_available", "expired_card", "lost_card"])
REFUSALS = st.builds(Decline, USUAL) | DECLINES
ZONES = st.none() | st.sampled_from(["Europe/Berlin", "America/Denver", "Asia/Kolkata", "Mars/Olympus"])
SPANS = st.integers(0, 40 * 24 * 60).map(lambda minutes: timedelta(minutes=minutes))
# Nothing may reach into the night from 00:30 to 06:00.
WINDOW = (
    st.tuples(st.integers(360, 1428), st.integers(0, 1439), st.booleans())
    .filter(lambda drawn: drawn[1] - drawn[0] > 10)
    .map(lambda drawn: Window(time(*divmod(drawn[0], 60)), time(*divmod(drawn[1], 60)), drawn[2]))
) | st.just(Window(time(0, 1), time(0, 30)))


DATES = st.none() | st.dates(date(2026, 10, 1), date(2027, 12, 1))
LIMITS = st.lists(
    st.builds(Limit, st.integers(1, 3), st.integers(12, 300), DATES, DATES, st.booleans()), min_size=1, max_size=2
).map(tuple)
RISING = st.lists(st.integers(1, 200), max_size=4, unique=True).map(lambda numbers: tuple(sorted(numbers)))
GAPS = st.lists(st.integers(1, 200), min_size=1, max_size=4).map(tuple)


WEIGHTS = [f"{name}={number}" for name in ("hour", "monthday", "since", "gap", "try", "payday") for number in range(9)]
MODELS = st.builds(
    Model, st.just("drawn"), st.floats(-4, 1), st.dictionaries(st.sampled_from(WEIGHTS), st.floats(-2, 2), max_size=12)
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy that its own checks let pass."""
    deadline = draw(st.integers(1, 45))
    days = sorted(draw(st.sets(st.integers(0, deadline), max_size=5)))
    return Policy(
        deadline_days=deadline,
        silent_days=draw(st.integers(0, deadline)),
        ending=draw(st.sampled_from(ENDINGS)),
        max_attempts=draw(st.integers(0, 12)),
        payday_reach_days=draw(st.integers(0, 15)),
        payday_midnight=draw(st.booleans()),
        take_over=draw(st.booleans()),
        spread_minutes=draw(st.integers(0, 720)),
        cooldown_hours=draw(st.integers(1, 300)),
        contacts_per_week=draw(st.integers(1, 7)),
        hold_hours=draw(RISING),
        excluded_countries=draw(st.sampled_from([(), ("IN",), ("US", "IN")])),
        gaps_hours={"retry_later": draw(GAPS), "retry_soon": draw(GAPS)},
        windows={name: draw(WINDOW) for name in WINDOWS},
        budgets={brand: draw(LIMITS) for brand in BRANDS if brand},
        ladder=tuple(Rung(f"notice_{day}", day) for day in days),
        explore_percent=draw(st.sampled_from([0, 0, 50, 100])),
        attempt_cost_percent=draw(st.integers(0, 30)),
        model=draw(st.none() | MODELS),
    )


@st.composite
def stories(draw: st.DrawFn, choices: st.SearchStrategy[Policy]) -> Story:
    """Any payment under one of these policies, any answers and happenings."""
    brand, country = draw(st.sampled_from(BRANDS)), draw(st.sampled_from(["US", "RU", "AU", "BR", "IN", "DE", None]))
    if brand in RAILS:
        country = RAILS[brand].country or "DE"
    first = Card("fp_1", brand, draw(st.sampled_from(["credit", "debit", None])), country, 12, 2030)
    others = (
        first,
        replace(first, exp_year=2034),
        replace(first, fingerprint="fp_2"),
        Card("fp_3", "visa", country="US"),
    )
    payment = FailedPayment(
        draw(st.text("abc123", min_size=1, max_size=8)),
        "cus_1",
        None,
        draw(st.integers(1, 10**9)),
        "eur",
        FAILED + draw(st.integers(0, 365 * 24 * 60)) * MINUTE,
        draw(REFUSALS),
        first,
        draw(ZONES),
    )
    stored = st.builds(Happening, SPANS, st.sampled_from(["updated", "entered"]), st.sampled_from(others))
    held = st.builds(
        Happening,
        SPANS,
        st.sampled_from(["paused", "resumed", "noticed", "asked", "asked", "used", "used", "retried", "given_up"]),
    )
    over = st.builds(Happening, SPANS, st.sampled_from(["paid", "canceled", "lapsed", "voided", "disputed"]))
    return Story(
        payment,
        draw(choices),
        draw(st.lists(REFUSALS, max_size=12)) + draw(st.lists(st.none(), max_size=1)),
        draw(st.lists(stored | held, max_size=6)) + draw(st.lists(over, max_size=1)),
        draw(st.lists(SPANS.map(lambda span: span / 100), max_size=6)),
    )


EVERY = stories(st.just(Policy()) | policies())
DEFAULT = stories(st.just(Policy()))


@settings(max_examples=5000, deadline=None)
@given(EVERY)
def test_every_promise_is_kept_at_every_moment_and_the_case_closes(story: Story) -> None:
    """Never in the past, in a closed window, over a budget, before an advised wait, after "never" or the deadline.

    Nor is a customer written to at night, within the cool-down, or while silence can help.
    """
    moments = play(story)
    for moment in moments:
        assert not [*broken_promises(moment.facts, story.policy, moment.now, moment.step)]
    assert isinstance(moments[-1].step, Close)


@settings(max_examples=1000, deadline=None)
@given(EVERY)
def test_the_same_facts_give_the_same_step_now_and_at_its_instant(story: Story) -> None:
    """Nothing but the arguments counts.

    Two things change with time alone: a wait for the deadline becomes the close, and a charge whose own instant was
    missed goes at the first open one, before the notice of that instant.
    """
    for moment in play(story):
        assert next_step(replace(moment.facts), story.policy, moment.now) == moment.step
        there = next_step(moment.facts, story.policy, moment.step.at)
        match moment.step, there:
            case Wait(), Close():
                pass
            case Contact(), Charge():
                assert story.late or story.happenings
                assert there.at == moment.step.at
            case _:
                assert replace(there, reasons=()) == replace(moment.step, reasons=())


@settings(max_examples=1000, deadline=None)
@given(DEFAULT)
def test_by_default_nobody_is_asked_in_the_night(story: Story) -> None:
    """From 00:30 to 06:00 in any zone of the bank; only the customer's own card is charged at once."""
    for moment in play(story):
        known = moment.facts
        waiting = known.card_entered_at is not None and known.card_entered_at > known.last_failure
        if isinstance(moment.step, Charge) and not waiting:
            assert not night(moment.step.at, place_of(known.card.country, story.payment.time_zone, known.card.brand))


@settings(max_examples=1000, deadline=None)
@given(EVERY)
def test_a_calendar_ahead_runs_forward_to_a_close(story: Story) -> None:
    """For every payment and policy, and whenever it is asked for."""
    for now in (story.payment.failed_at, story.payment.failed_at + 5 * DAY, story.payment.failed_at + 60 * DAY):
        steps = plan_ahead(story.payment, story.policy, now)
        assert isinstance(steps[-1], Close)
        assert all(earlier.at <= later.at for earlier, later in pairwise(steps))
        assert steps[0].at >= now
