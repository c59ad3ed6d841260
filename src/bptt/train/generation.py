"""What a trained network says by itself: text unit by unit, or the next values of a series."""

import numpy as np

from bptt.engine import predict
from bptt.errors import InputError
from bptt.model import Network
from bptt.train.problem import decoder
from bptt.typing import Array


def generate(
    network: Network, vocabulary: tuple[str, ...] | list[str], *, unit: str = "char", length: int = 400,
    temperature: float = 0.8, seed: int | list[int] = 0, prime: str = "", engine: str = "auto",
) -> str:  # fmt: skip
    """Text of `length` units, each drawn from softmax(y / temperature) after all before it.

    Args:
        network: trained on ids of this vocabulary.
        vocabulary: the units by id.
        unit: "char" or "word".
        length: how many units to draw.
        temperature: 1 as learnt, below 1 bolder, 0 always the likeliest.
        seed: of the draws.
        prime: what the text begins with; it is part of what comes back. Without one the network reads a line break
            first, or its first unit where there is none.
        engine: as `bptt.gradient`.

    Raises:
        InputError: a length or temperature below 0.  DataError: a prime with units that the network has never seen.
    """
    if length < 0:
        raise InputError("length", got=length, expected="0 or more")
    if not (np.isfinite(temperature) and temperature >= 0):
        raise InputError("temperature", got=temperature, expected="0 or more")
    text, rng = decoder({"unit": unit, "vocabulary": vocabulary}), np.random.default_rng(seed)
    first = text.encode(prime) if prime else np.array([], np.int32)
    heard = first if len(first) else np.array([text.vocabulary.index("\n") if "\n" in text.vocabulary else 0])
    y, states = predict(network, heard[:, None], engine=engine)
    ids = list(first)
    for _ in range(length):
        ids.append(_draw(rng, y[-1, 0], temperature))
        y, states = predict(network, np.array([[ids[-1]]]), states=states, engine=engine)
    return text.decode(ids)


def _draw(rng: np.random.Generator, logits: Array, temperature: float) -> int:
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64)
    scaled = np.exp((scaled - scaled.max()) / temperature)
    return int(np.searchsorted(np.cumsum(scaled / scaled.sum()), rng.random(), side="right").clip(max=len(scaled) - 1))


def forecast(network: Network, tail: Array, mean: Array, std: Array, length: int) -> Array:
    """The next values of a series, (length, D) in its own units, each predicted from those before it.

    Args:
        network: trained to predict the next row.
        tail: (N, D) the last rows, standardised, which the network reads first.
        mean, std: (D,) of the standardisation.
        length: how many rows to predict, at least 1.

    Raises:
        InputError: a length below 1.
    """
    if length < 1:
        raise InputError("length", got=length, expected="at least 1")
    y, states = predict(network, tail[:, None, :])
    rows = [y[-1]]
    for _ in range(length - 1):
        y, states = predict(network, rows[-1][None], states=states)
        rows.append(y[-1])
    return np.concatenate(rows).astype(np.float64) * std + mean
