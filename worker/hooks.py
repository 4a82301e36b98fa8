"""What are the merchant's own systems told? Webhooks to one endpoint, signed in the Standard Webhooks form.

Each message is told at least once and always under the same id, so that the receiver leaves out what it has. A
notice that does not go by mail is told like that too, for somebody else to say it: ready in words, without an address.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any

import requests
from sqlalchemy import Row

from schedules.steps import utc_text
from worker.clock import machine_now
from worker.settings import Settings
from worker.standard_webhooks import sign
from worker.suppressions import Customer
from worker.wording import Bill, Letter

BY_WEBHOOK = ("hook", "sms", "app")  # the channels that lead to the endpoint
DUE = "notice.due"


class HookError(Exception):
    """The endpoint did not take a message. The text says how that failed, and nothing of what was answered."""


class HookGone(HookError):
    """The endpoint answers that it is no more."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """The endpoint, and the secrets that sign, all of them while one is replaced. An address may be a secret, too."""

    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    connect_seconds: float = 5
    read_seconds: float = 10

    @classmethod
    def from_settings(cls, settings: Settings) -> Hooks | None:
        """Return the endpoint of an installation; ``None`` unless both the address and a secret are set."""
        if settings.hook_url is None or not settings.hook_secret:
            return None
        secrets = tuple(each.get_secret_value() for each in settings.hook_secret)
        return cls(settings.hook_url.get_secret_value(), secrets)

    def send(self, message_id: str, kind: str, at: datetime, data: dict[str, Any]) -> None:
        """Tell what happened at an instant; raise ``HookError`` unless the endpoint says that it has it."""
        body = json.dumps({"type": kind, "timestamp": utc_text(at), "data": data}).encode()
        status = self._post(body, sign(self.secrets, message_id, machine_now(), body))
        if status == HTTPStatus.GONE:
            msg = "the endpoint says that it is gone (410)"
            raise HookGone(msg)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            msg = f"the endpoint answered {status}"
            raise HookError(msg)

    def _post(self, body: bytes, signed: dict[str, str]) -> int:
        """Return the status of the answer; its words are not read."""
        headers = {"content-type": "application/json", "user-agent": "dunning", **signed}
        limits = (self.connect_seconds, self.read_seconds)
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy and no password that the environment happens to name
                post = session.post(self.url, body, headers=headers, timeout=limits, allow_redirects=False, stream=True)
                with post as answer:
                    return answer.status_code
        except requests.RequestException as error:  # its text names the address
            msg = f"the endpoint did not answer: {type(error).__name__}"
            raise HookError(msg) from None


def notice_due(
    channel: str, notice: str, letter: Letter, customer: Customer, payments: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return what a notice says of some payments, for another channel than mail: ids, money, days and words."""
    return {
        "channel": channel,
        "notice": notice,
        "locale": letter.tag,
        "customer_id": customer.customer_id,
        "account": customer.account,
        "payments": payments,
        "subject": letter.subject,
        "text": letter.text,
    }


def payment_told(case: Row[Any], bill: Bill, *, is_open: bool) -> dict[str, Any]:
    """Return what it says of the payment of a case."""
    days = {"pay_by": bill.pay_by, "next_charge": bill.next_charge}
    return {
        "payment_id": case.payment_id,
        "subscription_id": case.subscription_id,
        "amount_minor": bill.reading.amount_minor,
        "currency": bill.reading.currency,
        "link": bill.reading.link if is_open else None,
        **{name: day.isoformat() if day and is_open else None for name, day in days.items()},
    }
