"""What is done every night: read the subscriptions that the provider shows, and score all that is stored."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine

from schedules.learned import Model
from schedules.risk import RULES
from schedules.tables import PolicyError
from worker.catchup import accounts
from worker.risk.scores import score_all
from worker.stripe_gateway import StripeGateway
from worker.subscriptions import Counts, read_all

KIND = "risk-"  # how the version of a model of risk begins


def model_of(file: Path | None) -> Model:
    """Return the model of a file, or the rules without one; raise ``PolicyError`` when it is no model of risk."""
    if file is None:
        return RULES
    model = Model.load(file)
    if not model.version.startswith(KIND):
        msg = f"model {file}: version {model.version:.40} is no model of risk: dunning risk learn makes one"
        raise PolicyError(msg)
    return model


def read_and_score(
    engine: Engine, gateway: StripeGateway | None, now: datetime, model: Model, counts: Counts
) -> Iterator[int]:
    """Read every account, unless there is no gateway, then score; yields how many are done of either.

    Raises ``GatewayError``: what was read stays read, and nothing is scored.
    """
    if gateway is not None:
        for account in accounts(engine):
            yield from read_all(engine, gateway, account, counts)
    yield from score_all(engine, now, model)
