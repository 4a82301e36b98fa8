"""What did the merchant choose? Every value of the policy in force, its windows and its ladder as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from starlette.responses import Response

from schedules import Policy
from schedules.budgets import Limit
from schedules.hours import Window
from schedules.policy import Rung
from schedules.segments import Segment
from worker.locales import money
from worker.web.console import charts
from worker.web.console.pages import Visit, shown

A_DAY = 24
APART = ("declines", "rival", "segments")  # shown in tables of their own


def view(visit: Visit) -> Response:
    """Show the policy, and where the rival differs from it."""
    policy = visit.policy
    mine = list(rows(policy))
    theirs = dict(rows(policy.rival)) if policy.rival else {}
    other = [(key, theirs[key], value) for key, value in mine if policy.rival and theirs.get(key) != value]
    segments = [_segment(who, dict(rows(other)), mine) for who, other in policy.segments]
    pictures = {"windows_picture": _windows(policy), "ladder_picture": _ladder(policy)}
    told = {"rows": mine, "declines": policy.declines, "rival": other, "segments": segments}
    return shown(visit, "policy", {**told, **pictures})


def _segment(who: Segment, theirs: dict[str, str], mine: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the name of a segment, who belongs to it, and each choice that is otherwise, with the usual one."""
    amount = None if who.amount_from is None else money(who.amount_from, who.currency or "")
    known = {"customer for days": who.tenure_days_from, "amount": amount}
    least = [f"{name} from {value} on" for name, value in known.items() if value is not None]
    fits = [*least, f"plan {' or '.join(who.plans)}"] if who.plans else least
    changes = [(key, value, theirs[key]) for key, value in mine if theirs.get(key) != value]
    return {"name": who.name, "who": ", ".join(fits), "changes": changes}


def rows(policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield every choice with its value in words, those of a table one by one."""
    for field in fields(policy):
        value = getattr(policy, field.name)
        inner = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        if field.name in APART:
            continue
        if isinstance(inner, Mapping):
            yield from ((f"{field.name}.{key}", words(each)) for key, each in inner.items())
        else:
            yield field.name, words(value)


def words(value: Any) -> str:
    """Return one value as people read it."""
    match value:
        case bool():
            return "yes" if value else "no"
        case Window(opens, closes, business_days):
            return f"{opens:%H:%M} to {closes:%H:%M}{', business days' if business_days else ''}"
        case Limit(attempts, hours):
            return f"{attempts} in {hours} h{' per case' if value.per_case else ''}"
        case Rung(notice, day):
            return f"{notice} on day {day}"
        case tuple():
            return ", ".join(map(words, value)) or "none"
        case _:
            return str(value) or "none"


def _windows(policy: Policy) -> Any:
    return charts.windows([_stretch(name, window) for name, window in policy.windows.items()])


def _stretch(name: str, window: Window) -> dict[str, Any]:
    opens, closes = (wall.hour + wall.minute / 60 for wall in (window.opens, window.closes))
    days = "business days" if window.business_days else "every day"
    return {"window": name, "opens": opens, "closes": closes, "days": days, "told": words(window)}


def _ladder(policy: Policy) -> Any:
    """Draw when what happens at the earliest, if a bank refuses again and again and no window is closed."""
    until, later = policy.deadline_days, policy.gaps_hours["retry_later"]
    found = [
        *_points("charge, retry later", _retries(policy, later)),
        *_points("charge, retry soon", _retries(policy, (*policy.gaps_hours["retry_soon"], *later))),
        *_points("card read again", [hour / A_DAY for hour in policy.hold_hours]),
        *_points("notice", [policy.silent_days + rung.day for rung in policy.ladder]),
    ]
    rules = [{"day": policy.silent_days, "name": "silence ends"}, {"day": until, "name": "deadline"}]
    return charts.ladder([each for each in found if each["day"] <= until], rules, until)


def _points(row: str, days: list[float]) -> list[dict[str, Any]]:
    return [{"row": row, "day": round(day, 2)} for day in days]


def _retries(policy: Policy, gaps: tuple[int, ...]) -> list[float]:
    """Return after how many days each retry comes; the last gap is repeated."""
    chosen = [gaps[min(number, len(gaps) - 1)] for number in range(policy.max_attempts)]
    return [sum(chosen[: number + 1]) / A_DAY for number in range(len(chosen))]
