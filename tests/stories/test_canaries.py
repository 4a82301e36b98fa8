"""Is anything of a customer, or any secret, ever written down? A whole case with canaries in every field."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from tests.gateway.wire import served
from tests.stories.scripted import FAILED_AT, Scripted, a_payment
from tests.worker.builders import everything, told
from worker.clock import business_now, set_clock
from worker.embedded import Servers
from worker.practice.bank import make_app

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROOT = Path(__file__).parents[2]
# What a customer or a merchant may write, by the name that Stripe gives its field.
WRITTEN = (
    "address", "business_name", "city", "comment", "custom_fields", "customer_address", "customer_email",
    "customer_name", "customer_phone", "description", "email", "footer", "individual_name", "line1", "line2", "message",
    "name", "nickname", "phone", "postal_code", "receipt_email", "seller_message", "statement_descriptor",
)  # fmt: skip
CANARIES = {name: f"canary{name.replace('_', '')}" for name in WRITTEN}
OPENS = {
    "client_secret": "canaryclientsecret",
    "hosted_invoice_url": "https://invoice.stripe.example/canaryhosted",
    "receipt_url": "https://pay.stripe.example/canaryreceipt",
}
METADATA = {"canarykey": "canaryvalue", "time_zone": "canaryzone"}
SECRETS = {
    "STRIPE_API_KEY": "sk_test_canarykey",
    "STRIPE_WEBHOOK_SECRET": "whsec_canarywebhook",
    "LINK_SECRET": "canarylink" * 4,
    "SMTP_URL": "smtp://canaryuser:canarypassword@127.0.0.1:9",
}


def planted(node: Any) -> Any:
    """Return a JSON value with a canary in every field that somebody may fill, where there is one and where not."""
    if isinstance(node, list):
        return [planted(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {name: planted(each) for name, each in node.items()}
    texts = {name: CANARIES[name] for name, each in found.items() if name in WRITTEN and not isinstance(each, dict)}
    if found.get("object") in ("charge", "customer", "invoice", "payment_intent", "payment_method", "subscription"):
        address = {**CANARIES, "country": "US", "state": "canarystate"}
        texts |= {**CANARIES, **OPENS, "email": "canaryemail@customer.example"}
        found |= {"address": address, "billing_details": {**CANARIES, "address": address}, "metadata": METADATA}
        del texts["address"]
    return found | texts


class Planter:
    """ASGI middleware that plants canaries into everything that a bank answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Change the body of an answer of the API."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1"):
            await self._app(scope, receive, send)
            return
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        await self._app(scope, receive, keep)
        body = json.dumps(planted(json.loads(b"".join(message.get("body", b"") for message in kept)))).encode()
        headers = [pair for pair in kept[0]["headers"] if pair[0] != b"content-length"]
        await send({**kept[0], "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})


def test_nothing_of_a_customer_and_no_secret_is_logged_or_stored(
    engine: Engine, running: Servers, tmp_path: Path
) -> None:
    """From the first event to the ending: standard output and error at debug level, commands, pages and every row."""
    clock, policy = tmp_path / "clock", tmp_path / "policy.toml"
    set_clock(clock, FAILED_AT)
    policy.write_text('ending = "cancel"\n', encoding="utf-8")
    settings = {
        **SECRETS,
        "HOME": str(tmp_path),
        "DATABASE_URL": running.database_url,
        "BROKER_URL": running.broker_url,
        "PUBLIC_URL": "https://pay.shop.example",
        "CLOCK_FILE": str(clock),
        "POLICY": str(policy),
        "MODE": "live",
    }
    bank = make_app(Scripted((a_payment(),)), lambda: business_now(clock))
    bank.add_middleware(Planter)
    with served(bank) as address:
        environment = {f"DUNNING_{name}": value for name, value in settings.items()}
        done = subprocess.run(
            [sys.executable, "-m", "tests.stories.talkative", address],
            cwd=ROOT,
            env={**os.environ, **environment, "DUNNING_STRIPE_API_BASE": address, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    letters = [file.read_text(encoding="utf-8") for file in (tmp_path / "notices").glob("*.eml")]
    assert letters
    assert all("canaryemail@customer.example" in letter for letter in letters)
    assert {"opened", "delivered", "not_delivered", "closed"} <= set(told(engine))
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"debug", "info", "warning", "error"} <= {line["level"] for line in lines}
    assert {"dunning", "sqlalchemy.engine.Engine", "urllib3.connectionpool"} <= {line["logger"] for line in lines}
    written = {"output": done.stdout, "log": done.stderr, "rows": everything(engine)}
    assert {name: text[text.find("canary") - 300 :][:600] for name, text in written.items() if "canary" in text} == {}
    assert SECRETS["LINK_SECRET"] not in str(written)
