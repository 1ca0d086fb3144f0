"""The HTML report of a run: one file, no request to anywhere.

write_report(open_run("runs/NAME"), "runs/NAME/report.html")
"""

from underfire.report.page import write_report, write_report_of
from underfire.report.view import RunView

__all__ = ["RunView", "write_report", "write_report_of"]
