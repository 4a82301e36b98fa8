"""What does a bank of the built-in world say when it refuses? Codes as a provider shows them, causes hidden."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from schedules.facts import Decline

if TYPE_CHECKING:
    from random import Random

    from worker.practice.beliefs import Beliefs


class Why(NamedTuple):
    """What is behind a refusal, and what the bank is willing to say of it."""

    cause: str
    code: str
    brand: str | None
    to_payday: timedelta | None


def refusal(roll: Random, why: Why, beliefs: Beliefs) -> Decline:
    """Dress a decline code with the network's code and the advice that come with it, if they come."""
    advice = _said(roll, beliefs.tables["advice"].get(why.cause))
    return Decline(
        code=why.code,
        advice_code=advice,
        network_decline_code=beliefs.tables["network"].get(why.brand, {}).get(why.code),
        network_advice_code=_merchant_advice(roll, why, beliefs) if why.brand == "mastercard" else None,
        outcome_type="issuer_declined",
        outcome_reason=why.code,
    )


def _said(roll: Random, row: dict[str, Any] | None) -> str | None:
    said = roll.random()
    return str(row["code"]) if row and said < row["share"] else None


def _merchant_advice(roll: Random, why: Why, beliefs: Beliefs) -> str | None:
    if why.code == "revocation_of_authorization":
        return "21"
    if why.cause == "funds" and why.code == "insufficient_funds":
        return _wait_code(roll, why.to_payday, beliefs)
    return _said(roll, beliefs.tables["mastercard"].get(why.cause))


def _wait_code(roll: Random, to_payday: timedelta | None, beliefs: Beliefs) -> str | None:
    """The network names a wait: often the one that reaches the next payday, else any."""
    waits = beliefs.tables["mastercard_waits"]
    said, right = roll.random() < waits["share"], roll.random() < waits["right"]
    guess = roll.choice(list(waits["hours"]))
    if not said:
        return None
    if right and to_payday is not None:
        needed = to_payday / timedelta(hours=1)
        return str(min(waits["hours"], key=lambda code: abs(waits["hours"][code] - needed)))
    return str(guess)


def next_payday(paydays: tuple[datetime, ...], at: datetime) -> timedelta | None:
    """How long until the next payday, or ``None`` when this customer has none."""
    return next((payday - at for payday in paydays if payday > at), None)
