"""The codes of an audit, and what is said of each."""

from typing import Any, NamedTuple

from bptt.errors import unknown


class Rule(NamedTuple):
    """A code's name, what it means (with numbers in braces), and what to do."""

    name: str
    says: str
    do: str


RULES = {
    "BPA101": Rule(
        "cut-every-step", "the values go on from step to step and the gradient does not",
        "Hand the state on as it is, and detach it between sequences only.",
    ),
    "BPA102": Rule(
        "cut-in-chunks", "the gradient ends at {borders:.0f} borders, every {every:.0f} steps",
        "Detach less often, or walk back further than one chunk.",
    ),
    "BPA103": Rule(
        "truncated", "no loss reaches further back than {reach:.0f} steps",
        "Make the window longer than what is to be learnt, or walk back through all of it.",
    ),
    "BPA104": Rule(
        "cut-once", "the gradient ends before step {step:.0f} though values go on",
        "Take the detach away that stands there.",
    ),
    "BPA105": Rule(
        "weight-detached", "the values depend on it and no gradient comes to any of its uses",
        "Use the parameter itself, with gradients enabled, and return its gradient from a function of your own.",
    ),
    "BPA106": Rule(
        "uses-detached", "no gradient comes to some of its uses, though values depend on them",
        "Use the parameter itself, with gradients enabled, at every step.",
    ),
    "BPA107": Rule(
        "state-reset", "neither values nor gradient reach from one step to the next",
        "Keep the state between steps: it begins anew at each.",
    ),
    "BPA109": Rule(
        "cut", "the gradient is 0 where values reach, in no regular shape",
        "Look for values that leave the graph between the two steps.",
    ),
    "BPA201": Rule(
        "counted-again", "what one loss says is counted up to {times:.0f} times",
        "Send each loss back once, and hand each gradient on once in a backward of your own.",
    ),
    "BPA202": Rule(
        "stale-state-gradient", "the gradient that is sent on by hand holds that of earlier losses too",
        "Set the state's .grad to None before each loss goes back.",
    ),
    "BPA203": Rule(
        "loss-sent-again", "a loss that was sent back before goes back once more as part of a later one",
        "Send back each loss by itself, or their sum once at the end.",
    ),
    "BPA204": Rule(
        "stale-weight-gradient", "an update uses the gradient of the update before once more",
        "Call optimizer.zero_grad() before each backward pass.",
    ),
    "BPA301": Rule(
        "wrong-order", "the gradient of one step stands at another: it goes through time in the wrong order",
        "Walk from the last step to the first in backward.",
    ),
    "BPA302": Rule(
        "wrong-step", "the gradient belongs to the step beside it",
        "In backward use what went into that very step: h[t-1] and not h[t].",
    ),
    "BPA401": Rule(
        "wrong", "the gradient is not that of the values",
        "Check the backward function with torch.autograd.gradcheck in float64.",
    ),
    "BPA402": Rule(
        "scaled", "part of the gradient is {factor:.3g} times what the values say",
        "Look for a factor that backward has and forward has not.",
    ),
}  # fmt: skip


class Finding(NamedTuple):
    """Something that is wrong, with its evidence.

    code, name: as documented.  parameters: whose uses show it.  border: (loss k, use t) from 1 where it begins.
    says: what was found.  do: what to do.  use: line of the use.  cause: what was seen there.  cause_line: its line.
    evidence: numbers.
    """

    code: str
    name: str
    parameters: tuple[str, ...]
    border: tuple[int, int] | None
    says: str
    do: str
    use: str | None = None
    cause: str | None = None
    cause_line: str | None = None
    evidence: dict[str, float] | None = None

    @property
    def line(self) -> str | None:
        """The line of what caused it, else of the use."""
        return self.cause_line or self.use

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict() | {"line": self.line}


def find(code: str, parameters: Any, border: Any, evidence: dict[str, float], **where: Any) -> Finding:
    """A finding with the words of its rule."""
    rule = RULES[code]
    return Finding(
        code, rule.name, tuple(parameters), border, rule.says.format(**evidence), rule.do, evidence=evidence, **where
    )


def chosen(codes: Any, option: str) -> tuple[str, ...]:
    """Codes, or their beginnings as in BPA1.

    Raises:
        UnknownName: there is none that begins so.
    """
    given = codes.replace(",", " ").split() if isinstance(codes, str) else list(codes or ())
    for code in given:
        if not any(known.startswith(code) for known in RULES):
            raise unknown(option, code, RULES)
    return tuple(given)
