"""A voice detector that nobody here trained: how far back does the memory of silero-vad reach?

    pip install --no-deps silero-vad
    python examples/torch_silero_vad.py

silero-vad (MIT) says of every 32 ms of sound how likely it is speech: a spectrum, four convolutions, then an LSTM of
128 units that remembers what came before. Its weights are in the package, as safetensors; the package itself is not
imported. Gates stand in the file as torch has them, i f g o.

The signal is made here: noise, in its middle a buzz at 120 Hz with the resonances of a vowel, four times a second. The
losses are −log p of what is right at each of 60 chunks. The detector is sure of the buzz (0.99) and quiet in the noise
(0.07 at most), and its memory is long: a step back leaves the gradient of the state whole (gain 1.04), a tenth of what
the losses say stands at lag 0, and it takes 48 chunks, 1.5 s of sound, to hold 99 % of the gradient of weight_hh.
"""

from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

import bptt

RATE, CHUNK, CONTEXT, CHUNKS = 16_000, 512, 64, 60
WEIGHTS = "silero_vad/data/silero_vad_16k.safetensors"


class VoiceDetector(nn.Module):
    """The 16 kHz model of silero-vad 6, under the names of its weights; the LSTM cell as a layer over all chunks."""

    def __init__(self):
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def features(self, chunks: Tensor) -> Tensor:
        """(T, 64 + 512) samples → (T, 128)."""
        spectrum = self.stft_conv(F.pad(chunks[:, None], (0, 64), "reflect"))
        x = torch.hypot(spectrum[:, :129], spectrum[:, 129:])
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        return x[:, :, 0]

    def forward(self, chunks: Tensor) -> Tensor:
        """(T, 64 + 512) samples → (T,) how much speaks for speech, before the sigmoid."""
        out, _ = self.lstm_cell(self.features(chunks)[:, None])
        return self.final_conv(out.relu().mT)[:, 0, 0]


def weights_file() -> Path | None:
    """Of the installed package; None where there is none."""
    try:
        path = Path(str(metadata.distribution("silero-vad").locate_file(WEIGHTS)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.exists() else None


def load(path: Path) -> VoiceDetector:
    """The package's weights in the module above; frozen, save for the LSTM."""
    model = VoiceDetector()
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    layer = "lstm_cell."
    model.load_state_dict({name + "_l0" * name.startswith(layer): array for name, array in weights.items()})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(layer))
    return model


def signal() -> tuple[np.ndarray, np.ndarray]:
    """Samples, with a buzz in the middle third; and for each chunk whether it buzzes."""
    seconds = np.arange(CHUNKS * CHUNK) / RATE
    noise = 0.003 * np.random.default_rng(0).standard_normal(len(seconds))
    buzz = np.zeros_like(seconds)
    for n in range(1, 30):  # harmonics, the strongest where a vowel has its formants
        pitch = 120 * n
        formants = sum(a * np.exp(-(((pitch - f) / 120) ** 2)) for f, a in ((700, 1.0), (1200, 0.5), (2500, 0.25)))
        buzz += (0.02 + formants) * np.sin(2 * np.pi * pitch * seconds + n)
    where = (np.arange(CHUNKS) >= CHUNKS // 3) & (np.arange(CHUNKS) < 2 * CHUNKS // 3)
    loud = np.repeat(where, CHUNK) * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * seconds))
    return noise + 0.1 * loud * buzz, where


def chunked(samples: np.ndarray) -> Tensor:
    """Each chunk with the 64 samples before it."""
    padded = np.concatenate([np.zeros(CONTEXT), samples])
    rows = [padded[i : i + CONTEXT + CHUNK] for i in range(0, len(samples), CHUNK)]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def main() -> dict[str, float]:
    """Trace one pass; returns what the detector says, and how far its gradient reaches."""
    path = weights_file()
    if path is None:
        print("silero-vad is not installed: pip install --no-deps silero-vad")
        return {}
    model, (samples, where) = load(path), signal()
    truth = torch.from_numpy(where.astype(np.float32))
    with bptt.trace(model, keep="full") as trace:
        speech = model(chunked(samples))
        trace.backward(F.binary_cross_entropy_with_logits(speech, truth, reduction="none"))
    ledger, W = trace.ledger, "lstm_cell.weight_hh_l0"
    chance = torch.sigmoid(speech.detach()).numpy()
    gains = ledger.gains()
    gain = float(np.exp(np.log(gains[gains > 0]).mean()))
    reach = bptt.horizon(ledger, W)
    by_lag = ledger.lag_profile(W).values
    print(f"silero-vad {metadata.version('silero-vad')}: {ledger.meta['network']}, {CHUNKS} chunks of 32 ms")
    print(
        f"  chance of speech     in the buzz {chance[where].max():.2f}   in the noise before it {chance[:20].max():.2f}"
    )
    print(f"  one chunk back       leaves {gain:.2f} of what the state carries")
    print(f"  lags 0 to 5          {'  '.join(f'{part:.3f}' for part in by_lag[:6] / by_lag.sum())} of Σ‖C[k,t]‖")
    print(f"  {reach} chunks, {reach * 32} ms   hold 99 % of the gradient of weight_hh")
    print(f"  residual {ledger.residual:.0e}")
    return {
        "buzz": float(chance[where].max()), "noise": float(chance[:20].max()), "gain": gain, "reach": reach,
        "residual": ledger.residual,
    }  # fmt: skip


if __name__ == "__main__":
    main()
