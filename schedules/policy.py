"""What did the merchant choose? One checked value with a default for everything, read from TOML.

The dataclasses below are the whole format: a TOML file may set any subset of their fields, and every
unknown key, wrong type or impossible value is refused by its full name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import time, timedelta
from pathlib import Path
from typing import Any

from schedules.arms import CONTROL, A, B, Experiment
from schedules.budgets import MONTH_HOURS, YEAR_HOURS, Limit
from schedules.declines import TABLE, DeclineClass, Row
from schedules.facts import FailedPayment
from schedules.hours import Window
from schedules.learned import Model
from schedules.places import ZONES_OF_COUNTRY
from schedules.segments import Segment
from schedules.tables import PolicyError, new, over

ENDINGS = ("leave", "cancel", "mark_uncollectible", "pause", "release")
# A draw is one for all, and the budget of a card for all who pay with it.
NEVER_OF_A_SEGMENT = {"budgets", "experiment", "rival", "segments"}
GAPS = ("retry_later", "retry_soon")
NIGHT = "00:30 to 06:00 is night, when nobody is charged or written to: no window may reach into it"
WINDOWS = ("funds", "payday", "unexplained", "limit", "retry_soon", "new_credential", "contact", "sms")
# A channel of the notices, and the window it keeps.
CHANNELS = {"mail": "contact", "sms": "sms", "app": "contact"}
HOOKS = (
    *("case.opened", "case.planned", "case.recovered", "case.lost", "case.canceled", "case.released"),
    *("subscription.auto_renew_off", "subscription.auto_renew_on"),
)


@dataclass(frozen=True, slots=True)
class DeclineRule:
    """What the merchant wants a code to mean instead of what the table says; ``wait_hours`` is the least wait.

    ``source`` is a table of declines.csv. Raises ``ValueError`` for an unknown source or class, or a negative number.
    """

    source: str
    code: str
    decline_class: str
    retry_limit: int = 0
    wait_hours: int = 0

    def __post_init__(self) -> None:
        sources = sorted({source for source, _ in TABLE})
        if self.source not in sources:
            msg = f"source: expected one of {', '.join(sources)}"
            raise ValueError(msg)
        if self.decline_class not in list(DeclineClass):
            msg = f"decline_class: expected one of {', '.join(DeclineClass)}"
            raise ValueError(msg)
        if not 0 <= self.retry_limit <= 100 or not 0 <= self.wait_hours <= YEAR_HOURS:
            msg = f"retry_limit and wait_hours: expected 0 to 100 retries and 0 to {YEAR_HOURS} hours"
            raise ValueError(msg)

    @property
    def row(self) -> Row:
        """The rule as a row of the table; the cause stays what it was."""
        known = TABLE.get((self.source, self.code))
        cause, wait = known.cause if known else "unexplained", timedelta(hours=self.wait_hours)
        meaning = "the merchant's own rule"
        return Row(self.source, self.code, DeclineClass(self.decline_class), self.retry_limit, wait, cause, meaning)


@dataclass(frozen=True, slots=True)
class Rung:
    """One notice of the contact ladder, ``day`` days after the first contact of the case."""

    notice: str
    day: int


def _gaps() -> Mapping[str, tuple[int, ...]]:
    return {"retry_later": (24, 48, 72, 96), "retry_soon": (2, 6)}


def _windows() -> Mapping[str, Window]:
    return {
        "funds": Window(time(6), time(21)),
        "payday": Window(time(0, 1), time(0, 30)),
        "unexplained": Window(time(8), time(18), business_days=True),
        "limit": Window(time(6), time(21)),
        "retry_soon": Window(time(6), time(22)),
        "new_credential": Window(time(6), time(22)),
        "contact": Window(time(9), time(20), business_days=True),
        "sms": Window(time(10), time(17), business_days=True),
    }


def _budgets() -> Mapping[str, tuple[Limit, ...]]:
    return {
        "visa": (Limit(15, MONTH_HOURS),),
        "mastercard": (Limit(10, 24), Limit(35, MONTH_HOURS)),
        "amex": (Limit(8, MONTH_HOURS),),
        "discover": (Limit(8, MONTH_HOURS),),
        "us_bank_account": (Limit(3, 4320, per_case=True),),
        "sepa_debit": (Limit(3, MONTH_HOURS, per_case=True),),
        "bacs_debit": (Limit(3, MONTH_HOURS, per_case=True),),
        "au_becs_debit": (Limit(3, MONTH_HOURS, per_case=True),),
        "nz_bank_account": (Limit(2, MONTH_HOURS, per_case=True),),
        "acss_debit": (Limit(2, MONTH_HOURS, per_case=True),),
        "upi": (Limit(4, YEAR_HOURS, per_case=True),),
        "pix": (Limit(4, YEAR_HOURS, per_case=True),),
    }


def _ladder() -> tuple[Rung, ...]:
    return (Rung("first", 0), Rung("reminder", 4), Rung("second_reminder", 9), Rung("last_chance", 14))


@dataclass(frozen=True, slots=True)
class Policy:
    """The merchant's choices. Days and hours are durations; windows are local wall time.

    Raises ``PolicyError`` when the values contradict one another.
    """

    deadline_days: int = 28
    silent_days: int = 10
    ending: str = "leave"
    max_attempts: int = 8
    spread_minutes: int = 40
    payday_reach_days: int = 3
    payday_midnight: bool = False
    cooldown_hours: int = 48
    hold_hours: tuple[int, ...] = (24, 48, 72)
    other_cards: bool = False
    take_over: bool = False
    hands_off: bool = False
    notice_ended: bool = True
    notice_thanks: bool = False
    notice_expiring: bool = False
    contacts_per_week: int = 2
    optional: tuple[str, ...] = ("reminder", "second_reminder", "thanks", "expiring", "renewal", "renewal_card")
    channels: tuple[str, ...] = ("mail",)
    hooks: tuple[str, ...] = ()
    excluded_countries: tuple[str, ...] = ("IN",)
    explore_percent: int = 0
    attempt_cost_percent: int = 9
    notice_cost_percent: int = 20
    prevent_percent: int = 75
    prevent_prefer: bool = False
    prevent_notice: bool = False
    gaps_hours: Mapping[str, tuple[int, ...]] = field(default_factory=_gaps)
    windows: Mapping[str, Window] = field(default_factory=_windows)
    budgets: Mapping[str, tuple[Limit, ...]] = field(default_factory=_budgets)
    ladder: tuple[Rung, ...] = field(default_factory=_ladder)
    declines: tuple[DeclineRule, ...] = ()
    experiment: Experiment = field(default_factory=Experiment)
    rival: Policy | None = None
    model: Model | None = None
    segments: tuple[tuple[Segment, Policy], ...] = ()

    def __post_init__(self) -> None:
        for key, wrong, reason in self._contradictions():
            if wrong:
                msg = f"{key}: {reason}"
                raise PolicyError(msg)

    def _contradictions(self) -> tuple[tuple[str, bool, str], ...]:
        days = [rung.day for rung in self.ladder]
        notices = {rung.notice for rung in self.ladder}
        strange = [country for country in self.excluded_countries if country not in ZONES_OF_COUNTRY]
        span = f"1 to {YEAR_HOURS}"
        return (
            ("deadline_days", not 1 <= self.deadline_days <= 365, "expected 1 to 365 days"),
            ("silent_days", not 0 <= self.silent_days <= self.deadline_days, "expected 0 to deadline_days"),
            ("payday_reach_days", not 0 <= self.payday_reach_days <= 15, "expected 0 to 15 days"),
            ("ending", self.ending not in ENDINGS, f"expected one of {', '.join(ENDINGS)}"),
            ("max_attempts", not 0 <= self.max_attempts <= 100, "expected 0 to 100 attempts"),
            ("spread_minutes", not 0 <= self.spread_minutes <= 720, "expected 0 to 720 minutes"),
            ("cooldown_hours", not 1 <= self.cooldown_hours <= YEAR_HOURS, f"expected {span} hours"),
            ("hold_hours", _not_rising(self.hold_hours, 1, YEAR_HOURS), f"expected rising hours of {span}"),
            (
                "excluded_countries",
                bool(strange),
                f"unknown country {', '.join(strange)}, expected ISO codes such as IN",
            ),
            ("explore_percent", not 0 <= self.explore_percent <= 100, "expected 0 to 100 percent"),
            ("attempt_cost_percent", not 0 <= self.attempt_cost_percent <= 100, "expected 0 to 100 percent"),
            ("notice_cost_percent", not 0 <= self.notice_cost_percent <= 100, "expected 0 to 100 percent"),
            ("prevent_percent", not 0 <= self.prevent_percent <= 100, "expected 0 to 100 percent"),
            ("contacts_per_week", not 1 <= self.contacts_per_week <= 7, "expected 1 to 7 notices"),
            ("channels", not self.channels or _other_than(self.channels, CHANNELS), _some_of(CHANNELS)),
            ("hooks", _other_than(self.hooks, HOOKS), _some_of(HOOKS)),
            ("budgets", any(brand != brand.lower() for brand in self.budgets), "expected brands in small letters"),
            ("ladder", _not_rising(days, 0, max(days, default=0)), "expected rising days of at least 0"),
            ("ladder", len(notices) < len(days) or "" in notices, "expected different notices, each with a name"),
            ("ladder", any(day > self.deadline_days for day in days), "longer than deadline_days"),
            ("gaps_hours", set(self.gaps_hours) != set(GAPS), f"expected exactly {', '.join(GAPS)}"),
            (
                "gaps_hours",
                any(not g or not 1 <= min(g) <= max(g) <= YEAR_HOURS for g in self.gaps_hours.values()),
                f"expected hours of {span}",
            ),
            ("windows", set(self.windows) != set(WINDOWS), f"expected exactly {', '.join(WINDOWS)}"),
            ("segments", len({who.name for who, _ in self.segments}) < len(self.segments), "expected different names"),
            *((f"windows.{name}", each.at_night, NIGHT) for name, each in self.windows.items()),
        )

    @property
    def overrides(self) -> tuple[Row, ...]:
        """The merchant's own rows of the decline table; of two for one code the later counts."""
        return tuple(rule.row for rule in self.declines)

    def of(self, arm: str, segment: str | None = None) -> Policy:
        """Return what an arm's customers get: this policy, its rival, or nothing at all.

        A segment changes the first two, each in its own way of being; one that is not there any more changes nothing.
        """
        if arm == CONTROL:
            take_over = self.take_over and self.experiment.control == "observe"
            alone = replace(self, hands_off=True, take_over=take_over, ending="leave", segments=())
            return replace(alone, notice_ended=False, notice_thanks=False, notice_expiring=False)
        chosen = self.rival or self if arm == B else self
        return next((policy for who, policy in chosen.segments if who.name == segment), chosen)

    def segment_of(self, payment: FailedPayment) -> str | None:
        """Return the name of the first segment that a payment fits, if there is one."""
        return next((who.name for who, _ in self.segments if who.fits(payment)), None)

    @property
    def every(self) -> tuple[Policy, ...]:
        """Every policy that somebody follows: those of the arms, each followed by those of its segments."""
        return tuple(each for arm in self.arms.values() for each in (arm, *(policy for _, policy in arm.segments)))

    @property
    def arms(self) -> Mapping[str, Policy]:
        """Every arm that has customers, with its policy."""
        shares = {B: self.experiment.rival_percent, CONTROL: self.experiment.control_percent}
        return {A: self} | {arm: self.of(arm) for arm, percent in shares.items() if percent}

    @classmethod
    def default(cls) -> Policy:
        """Return the policy that a merchant gets who chooses nothing."""
        return cls()

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Return the default policy with the values of a TOML file put over it.

        Raises ``PolicyError`` naming the file, the key and the reason.
        """
        try:
            given, folder = tomllib.loads(Path(path).read_text(encoding="utf-8")), Path(path).parent
            rival, segments = given.pop("rival", None), given.pop("segments", [])
            chosen = _over(cls(), given, folder)
            other = None if rival is None else _rival(chosen, rival, folder)
            other = other and replace(other, segments=_segments(other, segments, folder))
            return replace(chosen, rival=other, segments=_segments(chosen, segments, folder))
        except (OSError, ValueError, TypeError) as error:
            msg = f"policy {path}: {error}"
            raise PolicyError(msg) from error


def _over(policy: Policy, given: dict[str, Any], folder: Path) -> Policy:
    """Return the policy with a table put over it; the file of a model lies in ``folder`` unless its path is whole."""
    given = dict(given)
    file = given.pop("model", None)
    chosen = over(policy, given, "")
    if file is None:
        return chosen
    if not isinstance(file, str):
        msg = f"model: expected the path of a file, found {file!r:.40}"
        raise PolicyError(msg)
    return replace(chosen, model=Model.load(folder / file) if file else None)


def _rival(policy: Policy, given: Any, folder: Path) -> Policy:
    """Return the policy with what its rival does otherwise put over it."""
    if not isinstance(given, dict) or given.keys() & {"experiment", "rival", "segments"}:
        msg = "rival: expected a table of what it does otherwise, with neither experiment nor rival in it, nor segments"
        raise PolicyError(msg)
    try:
        return _over(policy, given, folder)
    except PolicyError as error:
        msg = f"rival.{error}"
        raise PolicyError(msg) from error


def _segments(policy: Policy, given: Any, folder: Path) -> tuple[tuple[Segment, Policy], ...]:
    """Return the segments that a file names, each with the policy that it follows."""
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        msg = "segments: expected tables, each begun by [[segments]]"
        raise PolicyError(msg)
    return tuple(_segment(policy, each, f"segments[{i}]", folder) for i, each in enumerate(given))


def _segment(policy: Policy, given: dict[str, Any], where: str, folder: Path) -> tuple[Segment, Policy]:
    """Return who is meant, and the policy with what is otherwise for them put over it."""
    if wrong := given.keys() & NEVER_OF_A_SEGMENT:
        msg = f"{where}.{min(wrong)}: cannot be another one for a segment"
        raise PolicyError(msg)
    conditions = {each.name for each in fields(Segment)}
    who: Segment = new(Segment, {key: value for key, value in given.items() if key in conditions}, where)
    try:
        return who, _over(policy, {key: value for key, value in given.items() if key not in conditions}, folder)
    except PolicyError as error:
        msg = f"{where}.{error}"
        raise PolicyError(msg) from error


def _other_than(chosen: Sequence[str], known: Iterable[str]) -> bool:
    return len(set(chosen)) < len(chosen) or not set(chosen) <= set(known)


def _some_of(known: Iterable[str]) -> str:
    return f"expected some of {', '.join(known)}, each once"


def _not_rising(numbers: Sequence[int], least: int, most: int) -> bool:
    return list(numbers) != sorted(set(numbers)) or not all(least <= number <= most for number in numbers)
