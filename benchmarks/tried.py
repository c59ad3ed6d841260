"""What was tried where our step is not the fastest: docs/benchmarks.md has it beside the row, as long as that is so.

Key: the row's title, as in "LSTM 1000, 1, 64, 256", or a target's words, or the beginning of either.
Value: a sentence or two.
"""

TINY = (
    "A third of the time is in kernels; the rest is Python around them: checks, some twenty calls of compiled "
    "functions, the ledger's own objects. Fewer passes over the factors, one dispatch for all products and cheaper "
    "checks took the ledger from 0.30 to 0.23 ms here; one compiled function for a whole step was not tried."
)
ALONE = (
    "Divided by units, its threads meet at every step, which halves the time on idle cores (10.6 against 20 ms); where "
    "one of them has to wait, as beside other programs, the engine goes on with one thread for a while."
)
TRIED: dict[str, str] = {
    "RNN 50, 1, 32, 32": TINY,
    "GRU 50, 1, 32, 32": TINY,
    "LSTM 50, 1, 32, 32": TINY,
    "LSTM 1000, 1, 64, 256": ALONE,
    "LSTM 100, 32, 64, 128": "With both cores idle 5.4 ms were seen without the ledger, 9.1 on one thread.",
    "time of our step with its ledger": (
        "At T = 100,000 the tape and deltas of a GRU or an LSTM are up to a gigabyte, more than the 256 MiB that are "
        "kept from step to step, and fresh pages cost as much again as the work: in some runs those of the one, in "
        "some those of the other. Up to 30,000 steps p is 1.0."
    ),
    "updates of `bptt train`": "5.3 × in the two runs before this one.",
    "what a ledger with norms and gains adds": (
        "Norms from the tiles of the gradient's own product, a multiply-add per element, add 5 to 8 % at H = 256 and "
        "512; at smaller sizes passes over the rows of z and δ and the bookkeeping weigh more."
    ),
    "what a ledger with shares as well adds": (
        "Shares need the gradient first, and then two more products of the five that a step has: 40 % at the same "
        "speed. Sums over pairs of steps would cost T² B²."
    ),
    "traced nn.LSTM over": (
        "At 50, 1, 32, 32 oneDNN's step takes 0.3 ms; the mode, the ledger's objects and the Python around the kernels "
        "take as much again."
    ),
    "a traced loop of LSTMCell": (
        "Each call that a program makes under a mode costs 2 µs, and a cell written out in Python some 20 µs more than "
        "in C++. One hook for both products, stacking what all steps have in common at once, and norms on the engine "
        "took the median from 1.52 to this."
    ),
    "peak memory of a traced step": (
        "A fused layer stays within it. A loop's deltas are kept until the end, where torch drops each at once; small "
        "ones, kept one by one among large gradients that are not, left holes in the heap that fit nothing. Since this "
        "run they are copied into a few pieces, which took the loops of one sequence, 256 units, to 1.3 to 1.6 times."
    ),
    "a 100 × 100 map": (
        "At the first shape the sweep is 21 GFLOP, 60 ms at the engine's best, and the norms of 10,000 pairs as long "
        "again; with one sequence a hundred steps of Python are most of it. Telling losses apart by binary digits took "
        "the readout's part from 90 ms to 8. One compiled function for the whole sweep was not tried."
    ),
}


def tried(title: str) -> str:
    """Every note that fits a row or a target."""
    return " ".join(note for beginning, note in TRIED.items() if title.startswith(beginning))
