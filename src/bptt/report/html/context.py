"""Section 5: what the model uses of its past, beside what its gradient reaches."""

import numpy as np

from bptt.diagnose.diagnosis import Diagnosis
from bptt.report.html.parts import Section, columns, figure, missing, paragraph, row
from bptt.report.svg.chart import chart
from bptt.report.svg.marks import Errors, Line, Mark, Rule
from bptt.report.svg.reach import in_words, reached
from bptt.report.svg.scales import axis
from bptt.report.svg.words import number, percent


def context(diagnosis: Diagnosis) -> Section:
    """Loss and output against the lag from which on the past is another's."""
    found, title = diagnosis.context, "What the model uses"
    if found is None or not len(found.lags):
        return Section("context", title, [missing("The effective context was", diagnosis.notes, "context")], "Context")
    lags, reach = np.asarray(found.lags), reached(diagnosis)
    log = int(lags[-1]) > 40
    x = axis("lag from which on the past is foreign, steps", [lags], log=log, tight=True)
    rules: list[Mark] = [Rule(x=float(found.steps), label=f"uses {number(found.steps)}", strong=True)]
    if reach is not None:
        rules.append(Rule(x=float(reach.steps), label=f"reach {number(reach.steps)}", lower=True))
    increase, errors = (np.where(np.isfinite(v), v, np.nan) * 100 for v in (found.increase, found.errors))
    marks: list[Mark] = [
        Line(lags, increase),
        Errors(lags, increase, errors),
        Rule(y=found.tolerance * 100, label=percent(found.tolerance, 0)),
    ]
    y = axis("increase of the loss, %", [increase - np.nan_to_num(errors), increase + np.nan_to_num(errors), [0.0]])
    first = chart("Increase of the loss", "By lag, with standard errors.", x, y, [*marks, *rules])
    caption = (
        "Mean loss with a foreign past over the loss with its own, minus 1; bars are standard errors over "
        f"{number(found.samples)} places."
    )
    numbers = columns(
        "Increase",
        ("lag", "loss", "standard error"),
        lags,
        [percent(float(v)) for v in found.increase],
        [percent(float(v)) for v in found.errors],
    )
    influence = np.where(np.isfinite(found.influence), found.influence, np.nan)
    second = chart(
        "Influence on the output",
        "By lag.",
        x,
        axis("‖Δy‖ / ‖y − ȳ‖", [influence, [0.0]]),
        [Line(lags, influence, "", 1, len(lags) < 30), *rules],
    )
    figures = row(
        figure("Increase of the loss", first, caption, numbers),
        figure(
            "Influence on the output",
            second,
            "How much the output changes, against how much it varies anyway.",
            columns("Influence", ("lag", "‖Δy‖ / ‖y − ȳ‖"), lags, found.influence),
        ),
    )
    words = (
        "The past before some lag is taken from another sequence. Where the loss no longer rises, the model does not "
        "use what was there, "
        f"whether or not a gradient reaches it. {in_words(diagnosis)}"
    )
    return Section("context", title, [paragraph(words), figures], "Context")
