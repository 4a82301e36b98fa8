"""How do the parts of one process find each other? The Celery app, the engine, the gateway and the policy.

Everything is made on first use, once per process: importing this module opens nothing.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from celery.worker.consumer import Consumer
from sqlalchemy import Engine, create_engine

from schedules import Policy
from worker import logs
from worker.clock import business_now
from worker.limits import Limits
from worker.settings import load_settings
from worker.stripe_gateway import StripeGateway

celery_app = Celery("dunning")
celery_app.config_from_object("celeryconfig")


@setup_logging.connect  # type: ignore[untyped-decorator]  # celery has no types
def _set_up_logs(**_given: Any) -> None:
    """Whoever answers this signal sets up the logs: handlers of Celery's own would write what no filter has seen."""
    logs.set_up()


class SafeConsumer(Consumer):  # type: ignore[misc]  # celery has no types
    """A consumer that outlives its broker.

    A full broker refuses to note that a message was taken: Celery 5.7.0 ends the worker then, with exit code 0. Here
    that is a lost connection like any other, and a lost hint.

    Celery 5.7.0 moreover closes the broken connection once more after a loss; that close hands unacknowledged messages
    back over a client that is gone and ends the worker with exit code 1. Only the close is skipped.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Count a full broker among the errors after which to connect again."""
        from redis.exceptions import OutOfMemoryError  # a tenth of a second, of which commands have no use

        super().__init__(*arguments, **named)
        self.connection_errors = (*self.connection_errors, OutOfMemoryError)  # type: ignore[has-type]

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Drop the broken connection without closing it; Celery reconnects as usual."""
        if self.connection is not None:
            self.connection.close = lambda: None
        super().on_connection_error_after_connected(exc)


@lru_cache(maxsize=1)
def engine() -> Engine:
    """Return the connection pool of this process."""
    return make_engine(load_settings().database_url or "")


def make_engine(url: str) -> Engine:
    """Return an engine whose sessions cannot hang on to a transaction or a statement for ever."""
    limits = "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=30000 -c timezone=UTC"
    connect: dict[str, Any] = {"options": limits, "connect_timeout": 10, "application_name": "dunning"}
    # An error of the database quotes its statement: with the parameters it would quote events and customers.
    return create_engine(
        url, pool_pre_ping=True, pool_size=10, max_overflow=5, connect_args=connect, hide_parameters=True
    )


@lru_cache(maxsize=1)
def gateway() -> StripeGateway:
    """Return the one door to Stripe of this process."""
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
