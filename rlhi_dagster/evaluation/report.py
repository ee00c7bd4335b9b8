"""The report: one self-contained page with every number, its interval and what it rests on.

What belongs here: the order of the page. What does not: its inputs (``report_data``), its sections (``report_results``,
``report_logs``, ``report_process``), its markup (``report_page``) and its plots (``report_plots``).

The page asks for nothing from the network and depends on its inputs alone: the same inputs give the same bytes.
"""

from __future__ import annotations

from rlhi_dagster.evaluation import report_logs, report_process, report_results
from rlhi_dagster.evaluation.report_data import ReportData
from rlhi_dagster.evaluation.report_page import Html, document, join, note

__all__ = ["ReportData", "render"]

TITLE = "Learning from user conversations"


def render(sections: ReportData) -> str:
    """The page as HTML.

    Args:
        sections: What to show; whatever is missing is named on the page together with the asset that makes it.
    """
    simulated = note("What is simulated here", sections.simulated) if sections.simulated.strip() else Html("")
    parts = [
        report_results.results(sections),
        report_results.differences(sections),
        report_results.cold_start(sections),
        report_results.reasoning(sections),
        report_logs.logs(sections),
        report_logs.reattempts(sections),
        report_logs.diversity(sections),
        report_process.pairs(sections),
        report_process.rewards(sections),
        report_process.training(sections),
        report_results.samples(sections),
        report_process.deviations(sections),
    ]
    return document(
        TITLE,
        "RLHI on Dagster: evaluation report",
        join([report_results.lead(sections), simulated]),
        [part for part in parts if part is not None],
        "Intervals are 95 % percentile intervals over 2,000 resamples of users unless a section says otherwise; shares without any "
        "variation get Wilson intervals.",
    )
