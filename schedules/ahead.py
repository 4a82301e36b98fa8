"""What will happen to a failed payment, if every charge is declined again in the same way? Its whole calendar."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from schedules.decide import next_step
from schedules.facts import Facts, FailedPayment, PastAttempt
from schedules.policy import Policy
from schedules.steps import Charge, Close, Contact, Refresh, Step

MOST_STEPS = 1000


def plan_ahead(payment: FailedPayment, policy: Policy, now: datetime) -> tuple[Step, ...]:
    """Return every step of the case up to its close, if each charge is declined again in the same way."""
    return steps_ahead(Facts(payment=payment, card=payment.card, uses=(payment.failed_at,)), policy, now)


def steps_ahead(facts: Facts, policy: Policy, now: datetime) -> tuple[Step, ...]:
    """Return every step that is left of a case, from what is known of it on, under the same assumption."""
    steps: list[Step] = []
    while not steps or not isinstance(steps[-1], Close):
        if len(steps) > MOST_STEPS:
            msg = f"no end after {MOST_STEPS} steps for {facts.payment.payment_id}"
            raise RuntimeError(msg)
        step = next_step(facts, policy, now)
        facts, now = declined_again(facts, step), step.at
        steps.append(step)
    return tuple(steps)


def declined_again(facts: Facts, step: Step) -> Facts:
    """Return the facts after a step was done; a charge is refused as the one before."""
    match step:
        case Refresh():
            return replace(facts, refreshed_at=step.at)
        case Charge():
            attempt = PastAttempt(step.attempt, step.at, facts.card, facts.refusal.decline)
            return replace(facts, attempts=(*facts.attempts, attempt), uses=(*facts.uses, step.at))
        case Contact():
            contacts = (*facts.customer_contacts, step.at)
            return replace(facts, contacted=(*facts.contacted, step.at), customer_contacts=contacts)
        case _:
            return facts
