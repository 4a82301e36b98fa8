"""How do processes hand work to each other? The Celery app, and a consumer that outlives its broker."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import setup_logging
from celery.worker.consumer import Consumer
from redis.exceptions import OutOfMemoryError

from worker import logs

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
        super().__init__(*arguments, **named)
        self.connection_errors = (*self.connection_errors, OutOfMemoryError)  # type: ignore[has-type]

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Drop the broken connection without closing it; Celery reconnects as usual."""
        if self.connection is not None:
            self.connection.close = lambda: None
        super().on_connection_error_after_connected(exc)
