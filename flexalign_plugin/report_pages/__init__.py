"""The report of a run as one HTML file that needs nothing else: for people who look from a phone or another desk.

`collect` reads a folder of results, `details` what is shown of one movie, `page` writes the file, `live` keeps it up to
date during a run. The page itself is `page.html`, `style.css`, `charts.js` and `report.js`.
"""

from .collect import Run, collect_run, holds_results
from .live import LiveReport
from .page import write_report

__all__ = ["LiveReport", "Run", "collect_run", "holds_results", "write_report"]
