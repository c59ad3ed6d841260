"""Tables and figures: reads results, computes nothing."""

from bptt.report.figures import ledger_figure, save_figure
from bptt.report.ledger import ledger_report
from bptt.report.lesson import lesson_report
from bptt.report.trials import trials_table

__all__ = ["ledger_figure", "ledger_report", "lesson_report", "save_figure", "trials_table"]
