"""How do the parts of one process find each other? The engine, the gateway and the policy.

Everything is made on first use, once per process: importing this module opens nothing.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import json
from sqlalchemy import Engine, create_engine

from schedules import Policy
from worker.clock import business_now
from worker.settings import load_settings

if TYPE_CHECKING:
    from worker.stripe_gateway import StripeGateway


@lru_cache(maxsize=1)
def engine() -> Engine:
    """Return the connection pool of this process."""
    return make_engine(load_settings().database_url or "")


def make_engine(url: str) -> Engine:
    """Return an engine whose sessions cannot hang on to a transaction or a statement for ever."""
    limits = "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=30000 -c timezone=UTC"
    connect: dict[str, Any] = {"options": limits, "connect_timeout": 10, "application_name": "dunning"}
    # An error of the database quotes its statement: with the parameters it would quote events and customers.
    shown: dict[str, Any] = {"hide_parameters": True, "json_serializer": _as_text, "json_deserializer": json.decode}
    return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=5, connect_args=connect, **shown)


def _as_text(value: Any) -> str:
    return json.encode(value).decode()


@lru_cache(maxsize=1)
def gateway() -> StripeGateway:
    """Return the one door to Stripe of this process. Its SDK takes a tenth of a second to import: not every command."""
    from worker.limits import Limits
    from worker.stripe_gateway import StripeGateway

    settings = load_settings()
    return StripeGateway.from_settings(settings, Limits(engine(), settings.requests_per_second))


@lru_cache(maxsize=1)
def policy() -> Policy:
    """Return the merchant's policy, read once; raise ``PolicyError`` when it cannot be used."""
    path = load_settings().policy
    return Policy.load(path) if path else Policy.default()


def now() -> datetime:
    """Return the business instant at which an edge (task, command, route) was entered."""
    return business_now(load_settings().clock_file)
