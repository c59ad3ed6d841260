"""The loop: a batch, its gradient by explicit backpropagation through time, an update; and looks in between.

Text and series are walked in windows that continue each other, with the state carried over and the gradient cut at the
window's edge (stateful truncated BPTT, Williams & Peng 1990). Tasks get a fresh batch every time.

Iteration n is the n-th update. What happens after it (validation, sample, probe, checkpoint) changes no number of the
training, so that a run that was stopped or killed goes on to the very same bytes.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bptt.engine import Pass, choose_engine, gradient, parse_plan, record, warm_up
from bptt.errors import FileError, InputError, NotFiniteError
from bptt.model import Batch, Network, States
from bptt.train.attribution import attribute
from bptt.train.config import Config
from bptt.train.flossing import floss
from bptt.train.folder import RunFolder, checkpoints, read_config
from bptt.train.generation import generate
from bptt.train.interrupt import Interrupt
from bptt.train.jacobian import JacobianSample
from bptt.train.metrics import Log, read_metrics
from bptt.train.omega import omega
from bptt.train.optimisers import Update
from bptt.train.probe import Probe
from bptt.train.problem import Problem, open_problem
from bptt.train.progress import Progress
from bptt.train.saved import Checkpoint, newest
from bptt.train.validate import Validated, validate

SAMPLE = 120  # units of a sample while learning
Each = Callable[[int], None] | None


@dataclass(eq=False)
class Result:
    """What a run came to.

    config, folder: of the run; no folder if nothing was written.  network: as it is now.
    iteration: updates so far.  interrupted: whether Ctrl-C stopped it before the last.
    validation: loss (and score) on all of the validation part; None if interrupted.
    baselines: what guessing costs, by the name of the guess, on the scale of the validation loss.
    probe: numbers of the last probe, None without one.  check: relative error of the gradient at the first probe.
    events: what stands in metrics.jsonl, as dictionaries.  facts: vocabulary of text; columns, mean, std of a series.
    """

    config: Config
    folder: Path | None
    network: Network
    iteration: int
    interrupted: bool
    validation: Validated | None
    baselines: dict[str, float]
    probe: dict[str, Any] | None
    check: float | None
    events: list[dict[str, Any]] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)


def fit(
    config: Config | None = None, *, folder: str | Path | None = None, resume: bool = False,
    iterations: int | None = None, console: Any = None, each: Callable[[int], None] | None = None,
) -> Result:  # fmt: skip
    """Train a network, or go on with a run.

    Args:
        config: of a new run; see `configure`. On resume it is read from the folder.
        folder: where the run is written; None writes nothing.
        resume: go on with the run in `folder`, to the very numbers of a run that was never stopped.
        iterations: on resume, go on to so many instead of the number in the configuration.
        console: a rich `Console` for progress; None is silent.
        each: called after every iteration, with its number.

    Raises:
        FileError: the folder cannot be written, is not empty (new), or holds no run (resume).
        BusyError: another process trains in the folder.  DamagedFile: no checkpoint is intact.
        NotFiniteError: NaN or infinity; names the iteration, the step and the tensor. The last checkpoint stays.
        DataError, InputError, UnknownName: the data or a setting cannot be used.

    >>> from bptt.train import configure
    >>> result = fit(configure("echo:2:8:2", hidden=8, iterations=2, batch=4))
    >>> result.iteration, sorted(result.baselines)
    (2, ['a guess without input'])
    """
    if not resume:
        return _begin(config or Config(), folder, console, each)
    if folder is None:
        raise InputError("resume", got="no folder", expected="the folder of a run")
    if config is not None:
        raise InputError("resume", got="a configuration too", do="A run goes on with its own; leave it out.")
    return _resume(Path(folder), iterations, console, each)


def _begin(config: Config, folder: str | Path | None, console: Any, each: Each) -> Result:
    config = config.replace(engine=choose_engine(config.engine))  # a run goes on with the engine that it began with
    problem = open_problem(config)
    start = Checkpoint(
        config, 0, make_network(problem, config), {}, None,
        np.random.default_rng([config.seed, 0]).bit_generator.state, 0, problem.digest, problem.facts,
    )  # fmt: skip
    if folder is None:
        return _Training(problem, start, None, None, console, each).run()
    with RunFolder(folder, resume=False) as home:
        home.write_config(config)
        with Log(home.path / "metrics.jsonl", 0) as log:
            return _Training(problem, start, home, log, console, each).run()


def _resume(folder: Path, iterations: int | None, console: Any, each: Each) -> Result:
    with RunFolder(folder, resume=True) as home:
        config = read_config(folder)
        choose_engine(config.engine)  # before anything is written
        if iterations is not None and iterations != config.iterations:
            config = config.replace(iterations=iterations)
            Config.__post_init__(config)
        problem = open_problem(config)
        start = _latest(home, problem, config)
        if config.iterations < start.iteration:
            raise InputError("iterations", got=config.iterations, expected=f"at least {start.iteration}, done already")
        with Log(home.path / "metrics.jsonl", start.log_size) as log:
            home.drop_after(start.iteration)
            home.write_config(config)
            return _Training(problem, start, home, log, console, each).run()


def _latest(home: RunFolder, problem: Problem, config: Config) -> Checkpoint:
    """The newest intact checkpoint, or the beginning for a run that was killed before its first."""
    found = checkpoints(home.path)
    if not found:
        if any(event["iteration"] > 0 for event in read_metrics(home.path)):
            got, do = "a run that was trained but has no checkpoint", "Restore it, or start a new run."
            raise FileError(f"{home.path}", got=got, expected="a checkpoint", do=do)
        rng = np.random.default_rng([config.seed, 0]).bit_generator.state
        return Checkpoint(config, 0, make_network(problem, config), {}, None, rng, 0, problem.digest, problem.facts)
    start = newest(found)
    if start.digest != problem.digest:
        got, do = "other data than it began with", "Restore the file, or start a new run."
        raise FileError(f"{home.path}", got=got, expected=f"the same {config.kind}", do=do)
    changed = [name for name in config.__struct_fields__ if getattr(config, name) != getattr(start.config, name)]
    changed = [name for name in changed if name != "iterations"]
    if changed:
        got = f"another {changed[0]} in config.json than in the checkpoint"
        raise FileError(f"{home.path}", got=got, expected="the same", do="Undo the change, or start a new run.")
    start.config = config
    return start


def make_network(problem: Problem, config: Config) -> Network:
    """The network of a configuration with fresh parameters."""
    return Network.create(
        config.cell, inputs=problem.inputs, hidden=config.hidden, outputs=problem.outputs, layers=config.layers,
        bidirectional=config.bidirectional, seed=config.seed, init=config.init, forget_bias=config.forget_bias,
        chrono=config.chrono, dtype=config.dtype, **config.options,
    )  # fmt: skip


class _Training:
    """One run in progress."""

    def __init__(
        self, problem: Problem, start: Checkpoint, home: RunFolder | None, log: Log | None, console: Any, each: Each
    ):
        self.problem, self.home, self.log = problem, home, log
        self.config, self.network, self.n, self.states = start.config, start.network, start.iteration, start.states
        self.optimiser, self.clip = self.config.make_optimiser(), self.config.make_clip()
        self.optimiser.state = dict(start.optimiser)
        self.plan, self.rng = parse_plan(self.config.plan), np.random.default_rng()
        self.rng.bit_generator.state = start.rng
        begun = home is not None and bool(checkpoints(home.path))
        self.saved = start.iteration if begun else None
        self.omega: float | None = None
        self.each = each
        self.probe = Probe(problem, self.config) if self.config.probe_every else None
        self.jacobian = JacobianSample(problem, self.config)
        self.progress = Progress(console, self.config.iterations, self.n)
        self.events = read_metrics(home.path) if home is not None and begun else []

    def run(self) -> Result:
        """Train to the last iteration, or until Ctrl-C."""
        folder = None if self.home is None else self.home.path
        self.progress.heading(self.problem.name, self.network.describe(), self.config, folder)
        try:
            return self._run()
        except NotFiniteError:  # how it came to that is worth knowing; a resumed run cuts it off again
            if self.log is not None:
                with contextlib.suppress(FileError):
                    self.log.flush()
            raise

    def _run(self) -> Result:
        validation = None
        self._warm_up()
        with self.progress, Interrupt(self.progress.say) as interrupt:
            if self.saved is None and self.n == 0:
                self._floss()
                self._look()
                self._save()
            while self.n < self.config.iterations and not interrupt.asked:
                self._iterate()
            done = self.n >= self.config.iterations
            if done:
                validation = self._last()
            elif self.saved != self.n:
                self._save()
        return self._result(validation, not done)

    def _warm_up(self) -> None:
        """The first step of a fresh installation compiles the engine: before the clock of the progress bar runs."""
        batch = self.problem.batch(0, np.random.default_rng(0), self.config.batch)
        warm_up(self.network, batch, self.problem.loss, self.plan, self.config.engine)

    def _floss(self) -> None:
        """Gradient flossing, before anything is learnt; on batches of its own."""
        if not self.config.floss:
            return
        rng = np.random.default_rng([self.config.seed, 4])
        self.network.params = floss(
            self.network, lambda n: self.problem.batch(n, rng, self.config.batch), updates=self.config.floss,
            seed=self.config.seed, each=self._flossed,
        ).params  # fmt: skip
        self.progress.prepared()

    def _flossed(self, n: int, value: float) -> None:
        self._note("floss", update=n, squared_exponents=value)
        self.progress.preparing(n, self.config.floss, f"Σλ² {value:.4f}")

    def _iterate(self) -> None:
        batch = self.problem.batch(self.n, self.rng, self.config.batch)
        if self.problem.starts_over(self.n):
            self.states = None
        before = self.states
        done, update = self._step(batch)
        self.states = None if self.problem.train is None else done.states
        self.n += 1
        clipped = update.clipped
        extra = {} if self.omega is None else {"omega": self.omega}
        self._note(
            "train", loss=done.loss, gradient_norm=clipped.norm, clip=clipped.factor, clipped=clipped.clipped, **extra
        )  # fmt: skip
        if self.probe is not None and (_due(self.n, self.config.probe_every) or self.n == self.config.iterations):
            self._attribute(batch, before, update)
        update.apply(self.network.params)
        self.progress.step(self.n, done.loss)
        if self.each is not None:
            self.each(self.n)
        self._after()

    def _step(self, batch: Batch) -> tuple[Pass, Update]:
        """The gradient and the update that it makes. NotFiniteError names the iteration and what is kept of the run."""
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked for, and named
                done = gradient(
                    self.network, batch, self.problem.loss, plan=self.plan, states=self.states, dx=False,
                    engine=self.config.engine,
                )  # fmt: skip
                if self.config.omega:
                    self._add_omega(batch, done)
                update = self.optimiser.update(self.network.params, done.gradients, self.clip)
                for name, delta in update.deltas.items():
                    if not np.isfinite(self.network.params[name] + delta).all():
                        raise NotFiniteError(f"update of {name}", got="overflow", expected="finite numbers")
            return done, update
        except NotFiniteError as error:
            kept = "" if self.saved is None else f" The checkpoint of iteration {self.saved} is kept."
            do = f"Start again with a lower learning rate, or clip the gradient.{kept}"
            what = f"iteration {self.n + 1}, {error.what}"
            raise NotFiniteError(what, got=error.got, expected=error.expected, do=do) from None

    def _add_omega(self, batch: Batch, done: Pass) -> None:
        """Ω joins the gradient before it is clipped, as a part of what is minimised."""
        extra = omega(
            self.network, batch, self.problem.loss, plan=self.plan, states=self.states, engine=self.config.engine
        )
        self.omega = extra.value
        for name, dW in extra.gradients.items():
            done.gradients[name] += self.config.omega * dW

    def _after(self) -> None:
        """What is due after an iteration; none of it changes the training."""
        config, n = self.config, self.n
        if n == config.iterations:  # the end looks at everything itself
            return
        if _due(n, config.validate_every):
            self._validate(config.validation_windows)
        if _due(n, config.sample_every):
            self._sample()
        if _due(n, config.probe_every):
            self._look()
        if _due(n, config.jacobian_every):
            self._sample_jacobian()
        if _due(n, config.checkpoint_every):
            self._save()

    def _last(self) -> Validated:
        """The end of the run: all of the validation part, a probe, a checkpoint; nothing new if it had ended before."""
        ended = any(event["kind"] == "end" and event["iteration"] == self.n for event in self.events)
        if ended:
            return validate(self.network, self.problem, engine=self.config.engine)
        value = self._validate(None)
        if self.n:
            self._sample()
            self._look()
            if self.config.jacobian_every:
                self._sample_jacobian()
        self._note("end", validation=value.loss, score=value.score)
        self._save()
        return value

    def _validate(self, windows: int | None) -> Validated:
        value = validate(self.network, self.problem, windows, self.config.engine)
        self._note("validation", loss=value.loss, score=value.score)
        self.progress.validated(self.n, value.loss, value.score)
        return value

    def _sample(self) -> None:
        if self.config.kind != "text":
            return
        facts, seed = self.problem.facts, [self.config.seed, 3, self.n]
        text = generate(
            self.network, facts["vocabulary"], unit=facts["unit"], length=SAMPLE, seed=seed, engine=self.config.engine
        )
        self._note("sample", text=text)
        self.progress.sample(text)

    def _look(self) -> None:
        """A probe; the first one also checks the gradient."""
        if self.probe is None:
            return
        ledger, facts = self.probe.look(self.network, self.n)
        if self.n == 0:
            facts["check"] = self.probe.check(self.network, ledger.gradients)
        self._note("probe", **facts)
        if self.home is not None:
            ledger.save(self.home.ledger(self.n))

    def _sample_jacobian(self) -> None:
        self._note("jacobian", **self.jacobian.look(self.network))

    def _attribute(self, batch: Batch, states: States | None, update: Update) -> None:
        """Which use moved the weights, in this iteration's update."""
        ledger = record(
            self.network, batch, self.problem.loss, plan=self.plan, states=states, engine=self.config.engine
        )
        facts = {}
        for name, part in attribute(update, ledger).items():
            facts[name] = {"moved": part.moved, "carried": part.carried, "decay": part.decay}
            if name.endswith(".W_hh"):
                facts[name]["shares"] = part.shares.tolist()
                if self.config.omega and part.moved:  # no step's: what is left
                    facts[name]["omega"] = float(1 - part.shares.sum() - part.carried - part.decay)
        self._note("update", parameters=facts)

    def _note(self, kind: str, **facts: Any) -> None:
        self.events.append({"kind": kind, "iteration": self.n, **facts})
        if self.log is not None:
            self.log.add(self.events[-1])

    def _save(self) -> None:
        if self.home is None or self.log is None:
            return
        size = self.log.flush(sync=True)
        Checkpoint(
            self.config, self.n, self.network, self.optimiser.state, self.states, self.rng.bit_generator.state, size,
            self.problem.digest, self.problem.facts,
        ).save(self.home.checkpoint(self.n))  # fmt: skip
        self.home.drop_old_checkpoints()
        self.saved = self.n

    def _result(self, validation: Validated | None, interrupted: bool) -> Result:
        probes = [event for event in self.events if event["kind"] == "probe"]
        check = next((event["check"] for event in probes if "check" in event), None)
        return Result(
            self.config, None if self.home is None else self.home.path, self.network, self.n, interrupted, validation,
            self.problem.baselines, probes[-1] if probes else None, check, self.events, self.problem.facts,
        )  # fmt: skip


def _due(n: int, every: int) -> bool:
    return every > 0 and n % every == 0
