"""`asecalc report`: one page and one figure of how a model behaves, from one model file."""

from asecalc_mlip.report.build import Report, make_report
from asecalc_mlip.report.settings import ReportSettings

__all__ = ["Report", "ReportSettings", "make_report"]
