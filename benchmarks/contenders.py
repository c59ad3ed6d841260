"""Who takes part, and what each is called."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from benchmarks.problem import Problem


class Work(NamedTuple):
    """What a contender makes of a problem.

    step: does one training step and returns what it found.
    answer: (loss, ‖dW_hh‖) of what a step returned, to be held against the others'; None where there is none.
    """

    step: Callable[[], Any]
    answer: Callable[[Any], tuple[float, float]] | None


class Contender(NamedTuple):
    """label: in tables.  role: "ours", "plain peer", "peer that looks" or "yardstick".  home: module and function.

    needs: the installed packages it depends on, whose versions belong to its numbers.
    """

    label: str
    role: str
    home: str
    needs: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def maker(self) -> Callable[[Problem, int], Work]:
        """The function that makes a problem's `Work`; importing it loads the framework."""
        module, _, name = self.home.partition(":")
        return getattr(import_module(f"benchmarks.{module}"), name)


RACE = {
    "reference": Contender("ours, reference", "ours", "ours:reference"),
    "compiled": Contender("ours, compiled", "ours", "ours:compiled"),
    "ledger": Contender("ours, compiled + ledger", "ours", "ours:ledger"),
    "shares": Contender("ours, compiled + ledger with shares", "ours", "ours:shares"),
    "torch": Contender("torch nn", "plain peer", "torch_peers:plain", ("torch",)),
    "jax": Contender("jax scan", "plain peer", "jax_peers:plain", ("jax",)),
    "keras-torch": Contender(
        "keras (torch)", "plain peer", "keras_peers:on_torch", ("keras", "torch"), (("KERAS_BACKEND", "torch"),)
    ),
    "keras-jax": Contender(
        "keras (jax)", "plain peer", "keras_peers:on_jax", ("keras", "jax"), (("KERAS_BACKEND", "jax"),)
    ),
    "torch-hooks": Contender("torch loop + hooks", "peer that looks", "torch_peers:hooks", ("torch",)),
    "sgemm": Contender("sgemm 2048³ (NumPy)", "yardstick", "yardstick:sgemm", ("numpy",)),
}
MAPS = {
    "map": Contender("ours, compiled, map", "ours", "ours:contribution_map"),
    "torch-map": Contender("T backward calls", "peer that looks", "torch_peers:backward_calls", ("torch",)),
}
TRACED = {
    "torch": RACE["torch"],
    "traced": Contender("torch nn, traced", "ours", "torch_traced:traced", ("torch",)),
    "loop": Contender("torch loop", "plain peer", "torch_traced:loop", ("torch",)),
    "traced-loop": Contender("torch loop, traced", "ours", "torch_traced:traced_loop", ("torch",)),
}
WATCHED = {
    "fifty": Contender("torch nn, 50 steps", "plain peer", "torch_traced:fifty", ("torch",)),
    "watched": Contender("torch nn, 50 steps, watched", "ours", "torch_traced:watched", ("torch",)),
}
TRACED_MAPS = {
    "traced-map": Contender("torch nn, traced, map", "ours", "torch_traced:traced_map", ("torch",)),
    "fused-calls": Contender("torch nn, T backward calls", "peer that looks", "torch_traced:fused_calls", ("torch",)),
}
ALL = RACE | MAPS | TRACED | WATCHED | TRACED_MAPS
