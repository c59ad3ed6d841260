"""Every remedy, tried on the adding problem over 100 steps: what it does to the reach of the gradient and to the loss.

    python examples/remedies.py

Four networks that do not learn it, or not soon, each with the remedies that apply to it: 1000 updates of 32 sequences,
Adam, the same data and the same seed for all of a table. Always to say 1 costs 1/6. Three seeds; a few minutes.

The tables are those of docs/remedies.md: reach of the gradient of the recurrent weight in steps, slope of log ‖∂L/∂s‖
per step back, mean squared error, and whether the remedy helped: a longer reach, or still nearly all, and a lower loss.
"""

import os
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy loads; such small products gain nothing from more

import bptt
from bptt.train import Config, Trial, configure, fit, try_remedies
from bptt.train.problem import open_problem

SEEDS = (0, 1, 2)
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "tanh RNN": ({"cell": "rnn"}, ["gated-cell", "identity", "omega", "floss", "clip"]),
    "tanh RNN from a Glorot start": ({"cell": "rnn", "init": "glorot"}, ["orthogonal"]),
    "GRU, cut every 10 steps": ({"cell": "gru", "plan": "chunked:10"}, ["larger-K"]),
    "LSTM with forget bias 1": ({"cell": "lstm"}, ["chrono", "forget-bias"]),
}


def diagnosed(config: Config) -> Any:
    """The verdicts on the network after a few updates, from a batch of its own data."""
    problem = open_problem(config)
    result = fit(config.replace(iterations=min(config.iterations, 100), probe_every=0, validate_every=0))
    return bptt.diagnose(result.network, problem.validation.batch(0), problem.loss, quick=True)


def main(steps: int = 100, iterations: int = 1000, seeds: tuple[int, ...] = SEEDS) -> dict[str, list[dict[str, Any]]]:
    """Print a table for every network and seed; returns case → trials, as dictionaries."""
    found: dict[str, list[dict[str, Any]]] = {}
    for case, (options, names) in CASES.items():
        print(f"{case}, adding:{steps}, {iterations} updates")
        for seed in seeds:
            config = configure(f"adding:{steps}", seed=seed, iterations=iterations, **options)
            trials = try_remedies(config, diagnosed(config), iterations=iterations, remedies=names)
            found.setdefault(case, []).append(trials.to_dict())
            for row in (trials.base, *trials.rows):
                print(f"  seed {seed}  {line(row)}", flush=True)
    return found


def line(row: Trial | None) -> str:
    """One row of a table."""
    assert row is not None
    if row.measured is None:
        return f"{row.remedy:12} {row.words}"
    told = {True: "helped", False: "did not help", None: ""}[row.helped]
    now = row.measured
    return f"{row.remedy:12} reach {now.horizon:4}   slope {now.slope or 0:+.4f}   loss {now.loss:.4f}   {told}"


if __name__ == "__main__":
    main()
