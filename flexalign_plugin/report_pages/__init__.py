"""The report of a run: one HTML file that opens in any browser and loads nothing else.

`collect` reads a folder of results, `details` collects what is drawn for one movie, `page` writes the file, and `live`
updates it during a run. The page itself is `page.html`, `style.css`, `charts.js` and `report.js`.
"""

from .collect import Run, collect_run, holds_results
from .live import LiveReport
from .page import write_report

__all__ = ["LiveReport", "Run", "collect_run", "holds_results", "write_report"]
