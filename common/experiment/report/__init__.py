"""What runs did, as a page to look at: curves, pictures and tables, in one HTML file and as PNG and SVG files."""

from common.experiment.report.write import write_report

__all__ = ["write_report"]
