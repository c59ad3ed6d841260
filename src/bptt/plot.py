"""Figures for papers, one function for each; needs the extra `plot` (matplotlib).

    bptt.plot.map(ledger, "W_hh")           what each loss says to each use
    bptt.plot.steps(ledger, "W_hh")         step gradients beside what the state carries; show="shares" for shares
    bptt.plot.lag_profile(ledger, "W_hh")   how far back
    bptt.plot.gains(ledger)                 what a step back leaves of ∂J/∂s; of a Gain by lag
    bptt.plot.spectrum(spectrum)            singular values of Jacobian products by lag
    bptt.plot.exponents(exponents)          Lyapunov exponents with their errors
    bptt.plot.gates(gates)                  gates at an end; show="time scales" for −1 / log f̄
    bptt.plot.cell_path(path)               the cell path against the gate path
    bptt.plot.truncation(truncations)       b(K), its interval, and the horizon
    bptt.plot.context(context)              what the model uses
    bptt.plot.training(history, "W_hh")     iteration × lag, with the losses
    bptt.plot.report(diagnosis)             all of it on one page
    bptt.plot.save(axes, "map.pdf")         .svg, .png or .pdf, whole or not at all

Each takes `ax=` to draw on axes of yours and returns the axes (`report` a figure), one column of a paper wide. No
window opens and pyplot is not touched; `.figure` of the axes is what a notebook shows.

>>> import bptt
>>> ax = bptt.plot.map(bptt.explain("the cat sat down"), "W_hh")
>>> ax.get_xlabel(), ax.get_ylabel()
('use at step t', 'loss at step k')
"""

from bptt.report.plots import (
    cell_path,
    context,
    exponents,
    gains,
    gates,
    lag_profile,
    map,
    report,
    save,
    spectrum,
    steps,
    training,
    truncation,
)

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
