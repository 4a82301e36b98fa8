"""When to retry, when to speak and when to stop: pure functions over frozen values."""

from schedules.ahead import plan_ahead
from schedules.decide import next_step
from schedules.facts import Card, Decline, Facts, FailedPayment, PastAttempt
from schedules.policy import Policy
from schedules.steps import Charge, Close, Contact, Refresh, Step, Wait
from schedules.tables import PolicyError

__all__ = [
    "Card",
    "Charge",
    "Close",
    "Contact",
    "Decline",
    "Facts",
    "FailedPayment",
    "PastAttempt",
    "Policy",
    "PolicyError",
    "Refresh",
    "Step",
    "Wait",
    "next_step",
    "plan_ahead",
]
