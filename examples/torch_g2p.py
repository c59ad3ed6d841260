"""Spelling to sound: which letters does the last state of g2p-en's encoder still learn from?

    pip install --no-deps g2p-en
    python examples/torch_g2p.py

g2p-en (Apache-2.0) says how English words are pronounced: a GRU of 256 units reads the letters, and all that another
GRU then hears of the word is its last state. Its weights are NumPy arrays in the package, which is not imported. They
were torch's: gates r z n, both biases, n = tanh(W x + b + r (U h + c)); so they go into `nn.GRU` as they are.

The loss is −log p of the first sound, as the package's own decoder says it from the last state. That sound is spelled
by the first letters, so the gradient has to come all the way back, and it does: at the k of "knight", seven steps
before the last, 0.37 of it is left, at the p of "physics" 0.62, at the first a of "activationism" 0.35.
"""

from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bptt
from bptt.report.terminal import bar

WEIGHTS = "g2p_en/checkpoint20.npz"
LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
ORDER = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
SOUNDS = (
    ["<pad>", "<unk>", "<s>", "</s>"]
    + [  # a vowel has its stress behind it, and UW stands there bare as well
        each + stress
        for each in ORDER.split()
        for stress in (("", "0", "1", "2")[each != "UW" :] if each[0] in "AEIOU" else ("",))
    ]
)
START = 2  # the id of <s>, which the decoder hears first
WORDS = ("knight", "physics", "through", "activationism")


class Speller(nn.Module):
    """Letters → the first sound, with the two GRUs of g2p-en."""

    def __init__(self, letters: int = 29, sounds: int = 74, width: int = 256):
        super().__init__()
        self.letters = nn.Embedding(letters, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.sounds = nn.Embedding(sounds, width)
        self.decoder = nn.GRUCell(width, width)
        self.readout = nn.Linear(width, sounds)

    def forward(self, ids: Tensor) -> Tensor:
        """(1, T) letters → (1, 74) scores of the first sound."""
        _, last = self.encoder(self.letters(ids))
        start = self.sounds(torch.full((len(ids),), START))
        return self.readout(self.decoder(start, last[0]))


def weights_file() -> Path | None:
    """Of the installed package; None where there is none."""
    try:
        path = Path(str(metadata.distribution("g2p-en").locate_file(WEIGHTS)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.exists() else None


def load(path: Path) -> Speller:
    """The package's weights in the module above."""
    model = Speller()
    with np.load(path, allow_pickle=False) as arrays:
        given = {name: torch.from_numpy(arrays[name]) for name in arrays}
    parts = ("w_ih", "w_hh", "b_ih", "b_hh")
    ours = [name.replace("w_", "weight_").replace("b_", "bias_") for name in parts]
    state = {"letters.weight": given["enc_emb"], "sounds.weight": given["dec_emb"]}
    state |= {f"encoder.{name}_l0": given[f"enc_{part}"] for name, part in zip(ours, parts, strict=True)}
    state |= {f"decoder.{name}": given[f"dec_{part}"] for name, part in zip(ours, parts, strict=True)}
    model.load_state_dict(state | {"readout.weight": given["fc_w"], "readout.bias": given["fc_b"]})
    return model


def spelled(word: str) -> Tensor:
    """(1, T + 1) ids of the letters, and of the end."""
    return torch.tensor([[LETTERS.index(letter) for letter in [*word, "</s>"]]])


def main() -> dict[str, list[float]]:
    """Trace every word; returns ‖∂J/∂s_t‖ after each letter, as a part of that after the last."""
    path = weights_file()
    if path is None:
        print("g2p-en is not installed: pip install --no-deps g2p-en")
        return {}
    model, carried = load(path), {}
    print(f"g2p-en {metadata.version('g2p-en')}: what is left of ‖∂J/∂s‖ at each letter, and ‖dW_t‖ of weight_ih")
    for word in WORDS:
        with bptt.trace(model) as trace:
            scores = model(spelled(word))
            first = scores.detach().argmax(1)
            F.cross_entropy(scores, first).backward()
        ledger = trace.ledger
        left = ledger.state_norms("encoder.l0")[1:] / ledger.state_norms("encoder.l0")[-1]
        carried[word] = left.tolist()
        print(f"  {word} begins with {SOUNDS[first]}   residual {ledger.residual:.0e}")
        for letter, part, size in zip([*word, "⏎"], left, ledger.norms("encoder.weight_ih_l0"), strict=True):
            print(f"    {letter}  {part:8.4f}  {size:8.1e}  {bar(min(part, 1.0), 30)}")
    return carried


if __name__ == "__main__":
    main()
