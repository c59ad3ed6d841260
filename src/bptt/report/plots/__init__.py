"""Figures for papers. One file for each family; `bptt.plot` is where they are asked for."""

from bptt.report.plots.cost import context, truncation
from bptt.report.plots.course import training
from bptt.report.plots.files import save
from bptt.report.plots.origin import lag_profile, map, steps
from bptt.report.plots.page import report
from bptt.report.plots.travel import exponents, gains, spectrum
from bptt.report.plots.units import cell_path, gates

__all__ = [
    "cell_path",
    "context",
    "exponents",
    "gains",
    "gates",
    "lag_profile",
    "map",
    "report",
    "save",
    "spectrum",
    "steps",
    "training",
    "truncation",
]
