"""`bptt.trace`: a context around the forward and the backward pass of any `torch.nn.Module`, unmodified."""

import contextlib
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bptt.engine import choose_engine
from bptt.errors import InputError, unknown
from bptt.ledger import KEEP, Ledger
from bptt.trace.torch.assemble import adds_up
from bptt.trace.torch.assemble import ledger as assemble
from bptt.trace.torch.calls import CALLS
from bptt.trace.torch.fused import FUSED
from bptt.trace.torch.losses import Losses
from bptt.trace.torch.patches import patched
from bptt.trace.torch.returned import came_back, precision, reused, times, unseen
from bptt.trace.torch.tracer import Tracer

ENGINES = ("auto", "compiled", "torch")
UNSEEN = (
    "What is inside a scripted function, or was worked out from a parameter before the block, no mode of torch can see."
)


class Trace:
    """What happens inside a `with` block, as a ledger.

    ledger: of the one forward and backward pass in the block.
    """

    def __init__(self, model: nn.Module, *, keep: str, map: bool, engine: str, scaler: Any):
        if keep not in KEEP:
            raise unknown("keep", keep, KEEP)
        self.model, self.scaler, self.map = model, scaler, map or keep == "full"
        parameters = watched(model)
        constants = list(model.buffers()) + [p for p in model.parameters() if not p.requires_grad]
        self.engine = _engine(engine)
        self.tracer = Tracer(parameters, constants, CALLS | FUSED, keep, self.engine, self.map, scaler)
        self._losses: Losses | None = None
        self._ledger: Ledger | None = None
        self._stack: contextlib.ExitStack | None = None

    def __enter__(self) -> "Trace":
        if torch.is_inference_mode_enabled():
            do = "Leave torch.inference_mode() around it."
            raise InputError("bptt.trace", got="inference mode", expected="a graph to walk back", do=do)
        if self._stack is not None:
            raise InputError("bptt.trace", got="a trace that was entered before", do="Make a new one for each pass.")
        with contextlib.ExitStack() as stack:
            for name, parameter in self.tracer.parameters.items():
                stack.callback(parameter.register_hook(self.tracer.gradient_hook(name)).remove)
            stack.enter_context(patched(self.tracer))
            stack.enter_context(self.tracer)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        assert self._stack is not None
        self._stack.close()
        self.tracer.close()

    def backward(self, losses: Tensor, at: Any = None) -> None:
        """What each loss says on its own, in one sweep for many; then `losses.sum().backward()`.

        Args:
            losses: (K,) one loss per step.
            at: (K,) the step, from 1, at which each stands; 1…K by default.

        Raises:
            InputError: not a vector of losses, not called with map=True, or `at` does not fit.
        """
        if not self.map:
            raise InputError("trace.backward", got="a trace without map=True", do="Say bptt.trace(model, map=True).")
        found = Losses(self.tracer, losses, at)
        found.sweep()
        self._losses = found
        losses.sum().backward()

    @property
    def ledger(self) -> Ledger:
        """The record of the block's forward and backward pass.

        Raises:
            InputError: there was no such pass, or no parameter was used more than once.
        """
        if self._ledger is None:
            self.tracer.settle()
            self._check()
            self._ledger = assemble(self.tracer, self._meta(), self._losses)
            self._warn(self._ledger)
            self.tracer.drop()
        return self._ledger

    def _check(self) -> None:
        tracer, what = self.tracer, "bptt.trace"
        if not tracer.records and not tracer.walks:
            do = UNSEEN if tracer.gradients else "Call it inside the with block, with gradients enabled."
            raise InputError(what, got="no call of a parameter", expected="a forward pass of the model", do=do)
        often, several = times(tracer), reused(tracer)
        if often > 1:
            do = "Add the losses up and go back once, or trace each pass on its own."
            raise InputError(what, got=f"{often} backward passes over one forward pass", expected="one", do=do)
        if not tracer.gradients:
            do = "Call loss.backward() inside the with block, on a loss that depends on the recurrent part."
            raise InputError(what, got="nothing that came back to a parameter", expected="a backward pass", do=do)
        if not several:
            raise InputError(what, got="no parameter that was used more than once", expected="a recurrent model",
                             do=frozen(self.model) or (UNSEEN if unseen(tracer) else None))  # fmt: skip
        if not came_back(tracer, several):
            got, do = "a backward pass that came to other parameters only", "Call loss.backward() on a loss of it."
            raise InputError(what, got=got, expected="one through the recurrent part", do=do)
        if self.map and self._losses is None:
            do = "Call trace.backward(losses) in place of loss.backward()."
            raise InputError(what, got="map=True and no losses of their own", expected="a vector of them", do=do)

    def _warn(self, ledger: Ledger) -> None:
        """Say of which parameters uses are missing, rather than give less in silence."""
        limit = {torch.float64: 1e-9, torch.float32: 1e-3}.get(precision(self.tracer), 0.3)
        gaps = {name: one.gap for name, one in self.tracer.measured.items()}
        missing = [name for name in ledger.names if not adds_up(ledger, name, limit, gaps.get(name))]
        missing = [*unseen(self.tracer), *missing]
        ledger.meta["unseen"] = missing
        if missing:
            warnings.warn(f"bptt.trace: not every use was seen of {', '.join(missing)}. {UNSEEN}", stacklevel=3)

    def _meta(self) -> dict[str, Any]:
        scaled = "" if self.scaler is None else ", divided by the scale of the GradScaler"
        return {
            "source": f"torch {torch.__version__}",
            "network": describe(self.model),
            "engine": f"torch, {self.engine} for fused layers" if self.tracer.walks else "torch",
            "gradient": f"raw: before clipping and averaging{scaled}",
            "loss": "as the program's own",
            "plan": "autograd: as far as the program's graph reaches",
        }


def trace(
    model: nn.Module, *, keep: str = "factors", map: bool = False, engine: str = "auto", scaler: Any = None
) -> Trace:
    """A context in which a model's forward and backward pass are recorded, use by use of every shared parameter.

    Nothing of the model is changed, and nothing is left on it. Outputs, gradients, buffers and random numbers are those
    of the same pass without it: to the last bit, save for `nn.RNN`, `nn.GRU` and `nn.LSTM`, which run on an engine of
    ours and agree to rounding. What torch.compile has compiled runs as it is written while it is traced; what torch.jit
    has scripted cannot be seen, and a warning and meta["unseen"] name its parameters.

    Args:
        model: any module; wrapped in DDP or compiled too.
        keep: "factors", "norms" or "full", as in `bptt.record`.
        map: whether each loss is asked on its own; call `trace.backward(losses)` in place of `loss.backward()`.
        engine: of fused layers: "compiled" (needs the extra `fast`; float32 and float64 on the CPU), "torch" (any type,
            any device), or "auto".
        scaler: the `GradScaler` that the loss is scaled with; the ledger is divided by its scale.

    Raises:
        InputError: no parameter that can be traced.  UnknownName: `keep` or `engine` is none of its kind.
        MissingExtra: "compiled" without the extra.

    >>> import torch
    >>> model = torch.nn.LSTM(3, 4)
    >>> with trace(model) as traced:
    ...     model(torch.ones(5, 2, 3))[0].sum().backward()
    >>> traced.ledger.norms("weight_hh_l0").shape, traced.ledger.residual < 1e-5
    ((5,), True)
    """
    return Trace(model, keep=keep, map=map, engine=engine, scaler=scaler)


def watched(model: nn.Module) -> dict[str, Tensor]:
    """Name → parameter, those that a gradient comes to.

    Raises:
        InputError: not a module, or none can be traced.
    """
    if not isinstance(model, nn.Module):
        raise InputError("model", got=type(model).__name__, expected="a torch.nn.Module")
    parameters = dict(model.named_parameters())
    name = f"model {type(model).__name__}"
    if not parameters:
        got = "quantised weights" if quantised(model) else "no parameters"
        raise InputError(name, got=got, expected="weights that a gradient comes to")
    for what, wrong in (("meta device", lambda p: p.is_meta), ("complex weights", lambda p: p.is_complex())):
        bad = next((n for n, p in parameters.items() if wrong(p)), None)
        if bad is not None:
            raise InputError(name, got=f"{what} ({bad})", expected="real weights with numbers in them")
    found: dict[str, Tensor] = {n.replace("_orig_mod.", ""): p for n, p in parameters.items() if p.requires_grad}
    if not found:
        do = "Set requires_grad on what is to be traced."
        raise InputError(name, got="frozen parameters only", expected="some that can be trained", do=do)
    return found


def quantised(model: nn.Module) -> bool:
    """Whether some of its layers are."""
    return any("quant" in type(m).__module__.split(".") or "quantized" in type(m).__module__ for m in model.modules())


def frozen(model: nn.Module) -> str | None:
    """What to do where a model has parts that no gradient comes to, None where it has none."""
    if quantised(model):
        return "Quantised layers have no gradient: trace the model before it is quantised."
    names = [name for name, p in model.named_parameters() if not p.requires_grad]
    if not names:
        return None
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"Set requires_grad on {names[0]}{more}: frozen parameters are not traced."


def describe(model: nn.Module) -> str:
    """One line: the class, its recurrent layers, its number of parameters."""
    layers = [
        f"{type(m).__name__} {m.input_size}→{m.hidden_size}" for m in model.modules() if isinstance(m, nn.RNNBase)
    ]
    count = sum(p.numel() for p in model.parameters())
    inside = f" ({', '.join(layers)})" if layers and not isinstance(model, nn.RNNBase) else ""
    title = layers[0] if isinstance(model, nn.RNNBase) else type(model).__name__
    return f"{title}{inside}, {count:,} parameters"


def _engine(engine: str) -> str:
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if engine == "torch":
        return engine
    found = choose_engine(engine, np.float32)
    return "compiled" if found == "compiled" else "torch"
