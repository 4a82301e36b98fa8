"""How does churn look in a spreadsheet? One row for each group, the whole as the last one; no cell needs another."""

from __future__ import annotations

from typing import Any

from worker.churn.counts import Churn
from worker.churn.figures import Figures
from worker.churn.sql import KINDS
from worker.report.spreadsheet import sheet


def table(churn: Churn) -> str:
    """Return it as comma-separated values; money is minor units, with columns of its own for each currency."""
    return sheet([_row(churn, group) for group in (*churn.groups, churn.total)])


def _row(churn: Churn, group: Figures) -> dict[str, Any]:
    """Return one row; what has no value is left empty."""
    share = group.share()
    low, high = share.interval or (None, None)
    return {
        **churn.question.period.as_json(),
        "final": churn.final,
        "by": churn.question.by,
        "group": group.group,
        "customers": group.customers,
        "lost": share.part,
        "lost_share": share.value,
        "lost_share_low": low,
        "lost_share_high": high,
        **group.lost,
        "contracted": group.contracted,
        "subscriptions": group.subscriptions,
        "subscriptions_lost": group.subscriptions_lost,
        "unpriced": group.unpriced,
        "unpriced_lost": group.unpriced_lost,
        **_money(group),
    }


def _money(group: Figures) -> dict[str, Any]:
    names = "customers", "customers_lost", "start", "lost", *KINDS, "contracted"
    told = {currency: money.as_json() for currency, money in group.value.items()}
    return {f"{name}_{currency}": money[name] for currency, money in told.items() for name in names}
