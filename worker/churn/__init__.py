"""Who left, why, and what they had paid: counted (``counts``), then shown in a terminal, a spreadsheet or a page."""

from worker.churn.counts import Churn, make_churn

__all__ = ["Churn", "make_churn"]
