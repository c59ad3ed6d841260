"""All that decides a run: the data, the network, the optimiser, and how often to look. One file, `config.json`.

`bptt.train.choice.configure` fills in what suits the data; a `Config` says everything, so that a run can be made again
from it alone.
"""

from typing import Any, Literal, get_args

import msgspec
import numpy as np

from bptt.engine import ENGINES, parse_plan
from bptt.errors import DataError, InputError, unknown
from bptt.train.clip import Clip
from bptt.train.optimisers import SGD, Adam, make_optimiser

Kind = Literal["text", "series", "task"]
DTYPES = ("float32", "float64")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every hyper-parameter of a run.

    kind, data: "text" (a path, None for the text that Python ships), "series" (a path) or "task" (its specification).
    unit, max_vocabulary: of text.  columns: of a series, None for all.  validation: share of text or series held out.
    cell, hidden, layers, bidirectional, options, init, forget_bias, chrono: as `Network.create`.
    batch: B sequences.  steps: T of a window; a task has its own.  iterations: updates of the weights.
    optimiser: "adam" or "sgd".  momentum: of sgd.  weight_decay: of adam.
    clip_norm, clip_value: limits of the gradient, None or 0 for none.
    omega: weight of Pascanu's Ω, 0 for none.  floss: updates of gradient flossing before training, 0 for none.
    plan: how to walk back, as `parse_plan`.  dtype: "float32" or "float64".  seed: of everything random.
    engine: "auto", "reference" or "compiled"; a run notes which one it began with, and goes on with that.
    probe_every, sample_every, validate_every, checkpoint_every: in iterations, 0 for never (validation and the last
        checkpoint are made at the end in any case).
    jacobian_every: iterations between two samples of the largest Lyapunov exponent on the probe's batch, 0 for never.
    probe_batch: sequences of the probe.  validation_windows: at most so many while training; all of them at the end.

    Raises:
        InputError: a value out of range.  UnknownName: a name that nothing answers to.

    >>> Config(hidden=64).optimiser
    'adam'
    """

    kind: Kind = "text"
    data: str | None = None
    unit: Literal["char", "word"] = "char"
    max_vocabulary: int | None = None
    columns: list[str] | None = None
    validation: float = 0.1
    cell: str = "lstm"
    hidden: int = 128
    layers: int = 1
    bidirectional: bool = False
    options: dict[str, bool | int | str | None] = {}
    init: str = "orthogonal"
    forget_bias: float = 1.0
    chrono: int | None = None
    batch: int = 16
    steps: int = 64
    iterations: int = 3000
    optimiser: str = "adam"
    learning_rate: float = 5e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    clip_value: float | None = None
    omega: float = 0.0
    floss: int = 0
    plan: str = "full"
    dtype: Literal["float32", "float64"] = "float32"
    engine: Literal["auto", "reference", "compiled"] = "auto"
    seed: int = 0
    probe_every: int = 500
    probe_batch: int = 4
    jacobian_every: int = 0
    sample_every: int = 500
    validate_every: int = 250
    validation_windows: int = 20
    checkpoint_every: int = 250

    def __post_init__(self):
        for name in ("hidden", "layers", "batch", "steps", "probe_batch", "validation_windows"):
            _whole(name, getattr(self, name), 1)
        for name in (
            "iterations",
            "seed",
            "floss",
            "probe_every",
            "sample_every",
            "validate_every",
            "checkpoint_every",
        ):
            _whole(name, getattr(self, name), 0)
        _whole("jacobian_every", self.jacobian_every, 0)
        for name, known in (
            ("kind", get_args(Kind)),
            ("unit", ("char", "word")),
            ("dtype", DTYPES),
            ("engine", ENGINES),
        ):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if not 0 < self.validation < 1:
            raise InputError("validation", got=self.validation, expected="a share above 0 and below 1")
        if not (np.isfinite(self.omega) and self.omega >= 0):
            raise InputError("omega", got=self.omega, expected="a weight of at least 0")
        if self.bidirectional and self.kind != "task":
            do = "Leave it out; bidirectional networks are for tasks."
            raise InputError(f"a bidirectional network on {self.kind}", got="targets that it can look at", do=do)
        if self.kind != "text" and not self.data:
            raise InputError("data", got="nothing", expected=f"a {self.kind}")
        parse_plan(self.plan)
        self.make_clip()
        self.make_optimiser()

    def make_optimiser(self) -> SGD | Adam:
        """The optimiser, at its start."""
        return make_optimiser(
            self.optimiser, self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def make_clip(self) -> Clip:
        """The limits of the gradient."""
        return Clip(self.clip_norm or None, self.clip_value or None)

    def to_json(self) -> str:
        """Readable JSON with every field."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "config") -> "Config":
        """What `to_json` wrote.

        Raises:
            DataError: not JSON, a field that there is not, or a value of the wrong type; it names which.

        >>> Config.from_json('{"hiden": 5}')
        Traceback (most recent call last):
        bptt.errors.DataError: config: got Object contains unknown field `hiden`, expected the fields of a Config
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(where, got=str(error), expected="the fields of a Config") from None

    def replace(self, **changes: Any) -> "Config":
        """The same with some fields changed."""
        return msgspec.structs.replace(self, **changes)


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(name.replace("_", " "), got=value, expected=f"a whole number of at least {least}")
