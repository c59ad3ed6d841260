"""The report: one page that opens from disk, without a script and without a request."""

from bptt.report.html.page import GENERATOR, html_report

__all__ = ["GENERATOR", "html_report"]
