"""One training step in full view: a sentence, a tiny network, and everything that backpropagation through time does.

The network reads the words one by one and says after each which word comes next; after the last, that the sentence
ends. So T words give T losses, T uses of every weight, and a T × T table of contributions.
"""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bptt.cells import pick
from bptt.data import split_words
from bptt.engine import check_gradient, evaluate, predict, record
from bptt.engine.reference.walk import forward
from bptt.errors import DataError, InputError
from bptt.ledger import Ledger
from bptt.ledger.norms import norm
from bptt.model import Batch, Loss, Network, States
from bptt.train.attribution import Attribution, attribute
from bptt.train.optimisers import SGD, Clip
from bptt.typing import Array
from bptt.uses import Columns, Elementwise, Matmul

END = "<end>"
LONGEST = 256  # words; the table grows with the square


class Factor(NamedTuple):
    """One factor of a contribution: its symbol, what it is, its value, and its norm (spectral for a Jacobian)."""

    symbol: str
    meaning: str
    value: Array
    norm: float


@dataclass(frozen=True, eq=False)
class Lesson:
    """A sentence, the network that read it, and what one training step made of it.

    words, targets: T words read, and the T words that should have been said.
    network, batch, loss, states: what was run; states holds a random h_0, so that use 1 has an input too.
    chances: (T,) probability that was given to each target.
    ledger: of keep="full".  check: relative error of the gradient against a complex step through the forward pass.
    learning_rate: α.  clipped: what clipping multiplied the gradient with, 1 for nothing.
    attribution: name → which use moved the weights.  after: J after the update.
    """

    words: list[str]
    targets: list[str]
    network: Network
    batch: Batch
    loss: Loss
    states: States
    chances: Array
    ledger: Ledger
    check: float
    learning_rate: float
    clipped: float
    attribution: dict[str, Attribution]
    after: float


def explain(sentence: str, *, cell: str = "rnn", hidden: int = 4, seed: int = 0, **options: Any) -> Ledger:
    """The ledger of one pass over a sentence: T losses, T uses of every weight, the T × T table.

    Args:
        sentence: at least one word, at most 256.
        cell: "rnn", "gru" or "lstm"; `options` are that cell's own.
        hidden: H.
        seed: of the weights and of h_0.

    Raises:
        DataError: no word, or too many.
        UnknownName: no such cell.

    >>> ledger = explain("the cat sat down")
    >>> ledger.T, ledger.residual < 1e-14
    (4, True)
    """
    return lesson(sentence, cell=cell, hidden=hidden, seed=seed, **options).ledger


def lesson(
    sentence: str,
    *,
    cell: str = "rnn",
    hidden: int = 4,
    seed: int = 0,
    learning_rate: float = 0.1,
    clip: float | None = None,
    **options: Any,
) -> Lesson:
    """As `explain`, with all that stands around the ledger: words, probabilities, the update and the loss after it."""
    words = split_words(sentence)
    if not words:
        raise DataError("sentence", got="no word", expected="at least one, for example 'the cat sat down'")
    if len(words) > LONGEST:
        do = "For a longer text: bptt train FILE."
        raise DataError("sentence", got=f"{len(words)} words", expected=f"at most {LONGEST}", do=do)
    if not (np.isfinite(learning_rate) and learning_rate > 0):
        raise InputError("learning rate", got=learning_rate, expected="a number above 0")
    targets = [*words[1:], END]
    vocabulary = list(dict.fromkeys([*words, END]))
    ids = {word: i for i, word in enumerate(vocabulary)}
    x, y = (np.array([[ids[word]] for word in row]) for row in (words, targets))
    network = Network.create(
        cell, inputs=len(ids), hidden=hidden, outputs=len(ids), seed=seed, init="glorot", **options
    )
    batch, loss = Batch(x, y), Loss("cross_entropy", reduction="sum")
    states = _random_states(network, seed)
    ledger = record(network, batch, loss, states=states, keep="full", source="bptt.explain", engine="reference")
    ledger.meta.update(words=words, targets=targets)
    logits = predict(network, x, states=states, engine="reference")[0][:, 0]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    chances = (odds / odds.sum(1, keepdims=True))[np.arange(len(words)), y[:, 0]]
    check = check_gradient(network, batch, loss, ledger.gradients, states=states)
    update = SGD(learning_rate).update(network.params, ledger.gradients, Clip(norm=clip))
    moved = network.astype(network.dtype)
    update.apply(moved.params)
    after = float(evaluate(moved, batch, loss, states, engine="reference")[0].sum())
    attribution = attribute(update, ledger)
    return Lesson(
        words, targets, network, batch, loss, states, chances, ledger, check, learning_rate, update.clipped.factor,
        attribution, after,
    )  # fmt: skip


def _random_states(network: Network, seed: int) -> States:
    """An h_0 that is not zero: with h_0 = 0 the first use of W_hh would have no input and no gradient."""
    rng = np.random.default_rng([seed, 1])
    zeros = network.initial_states(1)
    return {key: type(s)(*(rng.uniform(-0.5, 0.5, part.shape) for part in s)) for key, s in zeros.items()}


def term(lesson: Lesson, loss_step: int, step: int, name: str = "W_hh") -> list[Factor]:
    """The factors of one contribution C[k, t] to a recurrent weight, in the order of the chain rule, from L_k to W.

    ∂L_k/∂s_k, then one state Jacobian ∂s_j/∂s_{j−1} for every step between k and t, then ∂s_t/∂a_t (whose product so
    far is δ_t), then z_t, the immediate partial ∂⁺a_t/∂W, once, at the end. The last factor is their product, C[k, t].

    Raises:
        InputError: a step outside the sentence, or t > k: the future cannot use the past's loss.
    """
    ledger, T = lesson.ledger, lesson.ledger.T
    for what, value in (("loss step k", loss_step), ("step t", step)):
        if not 1 <= value <= T:
            raise InputError(what, got=value, expected=f"1 to {T}")
    if step > loss_step:
        do = "A use can only be reached by losses at its own step or later."
        raise InputError("term", got=f"k = {loss_step}, t = {step}", expected="t ≤ k", do=do)
    if ledger.name(name).startswith("readout."):
        do = "Name a weight of the recurrent layer, for example W_hh."
        raise InputError("term", got=name, expected="a weight whose uses reach through time", do=do)
    network = lesson.network
    stretch = forward(network, lesson.batch.x, lesson.states)
    tapes, p = stretch.tapes["layer0."], pick(network.cell, network.params, "layer0.")
    dL = _loss_adjoint(lesson, loss_step)
    factors = [Factor(f"∂L{loss_step}/∂h{loss_step}", f"the loss at '{lesson.targets[loss_step - 1]}'", dL, norm(dL))]
    state = "h" if len(network.cell.state_widths()) == 1 else "s"
    for j in range(loss_step, step, -1):
        J = _state_jacobian(network, p, tapes[j - 1])
        symbol = f"∂{state}{j}/∂{state}{j - 1}"
        factors.append(Factor(symbol, f"back through '{lesson.words[j - 1]}'", J, float(np.linalg.norm(J, 2))))
    factors += _use_factors(lesson, name, loss_step, step, state)
    C = ledger.contribution(name, loss_step, step)
    return [
        *factors,
        Factor(f"C[{loss_step},{step}]", f"the contribution to d{name.removeprefix('layer0.')}", C, norm(C)),
    ]


def _use_factors(lesson: Lesson, name: str, loss_step: int, step: int, state: str) -> list[Factor]:
    """δ_t and z_t of the use; of every block of columns where the blocks have inputs of their own."""
    use = lesson.ledger.loss_factors(name, loss_step, step)
    parts: tuple[Any, ...] = use.parts if isinstance(use, Columns) else (use,)
    factors: list[Factor] = []
    for i, part in enumerate(parts):
        mark = f"{step}" if len(parts) == 1 else f"{step}, block {i + 1}"
        delta = part.delta[0]
        factors.append(Factor(f"δ{mark}", f"the product so far through ∂{state}{step}/∂a{step}", delta, norm(delta)))
        value = np.ones(1) if part.z is None else part.z[0]
        value = np.eye(lesson.network.inputs)[value] if value.dtype.kind in "iu" else value
        factors.append(Factor(f"z{mark}", _meaning(lesson.ledger.name(name), part, step, i), value, norm(value)))
    return factors


def _meaning(name: str, part: Matmul | Elementwise, step: int, block: int) -> str:
    """What the input of a use is, in words."""
    last = name.rsplit(".", 1)[1]
    if part.z is None:
        return "∂⁺a/∂b: a bias has the input 1"
    if isinstance(part, Elementwise):
        return "∂⁺a/∂p, the memory that the gate sees, element by element"
    what = {"W_xh": f"x{step}", "W_hr": f"m{step}"}.get(last, f"h{step - 1}" if block == 0 else f"r ∘ h{step - 1}")
    return f"∂⁺a/∂W = {what}, the input of the use: once, at the end"


def _loss_adjoint(lesson: Lesson, loss_step: int) -> Array:
    """∂L_k/∂h_k through the readout alone, (H,)."""
    delta = lesson.ledger.loss_gradient("readout.b", loss_step)  # a bias of a batch of one: its gradient is its δ
    return delta @ lesson.network.params["readout.W"].T


def _state_jacobian(network: Network, p: object, tape: object) -> Array:
    """∂s_j/∂s_{j−1} (S, S), row i the derivative of unit i: every unit's adjoint walked back at once."""
    widths = network.cell.state_widths()
    unit = np.eye(sum(widths))[:, None, :]
    edges = np.cumsum([0, *widths])
    ds = network.cell.State(*(unit[..., low:high] for low, high in itertools.pairwise(edges)))
    return np.concatenate(network.cell.step_back(p, tape, ds)[0], axis=-1)[:, 0]
