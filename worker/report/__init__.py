"""What came back: counted (``cohort``), then shown in a terminal, a spreadsheet or a page."""

from worker.report.cohort import Report, make_report

__all__ = ["Report", "make_report"]
