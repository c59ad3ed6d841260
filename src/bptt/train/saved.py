"""Checkpoints: all that a run needs to go on to the very same numbers, and all that using the network needs.

Schema 1, written down in docs/training.md. Arrays: `params/NAME`, `optimiser/NAME`, `states/PREFIX/I` (parts of the
carried state), `facts/NAME` (mean, std and tail of a series). Info: `iteration`, `config`, `rng`, `log_size`, `digest`,
`facts` (vocabulary or columns).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bptt.cells import make_cell
from bptt.errors import BpttError, DamagedFile, FileError
from bptt.model import Network, States
from bptt.storage import read_arrays, write_arrays
from bptt.train.config import Config
from bptt.train.folder import checkpoints, read_config
from bptt.typing import Array, Params

FORMAT = "bptt.checkpoint"
SCHEMA = 1


@dataclass(eq=False)
class Checkpoint:
    """A run at one iteration.

    config: of the run.  iteration: updates so far; also the position in the data.  network: with its parameters.
    optimiser: its state.  states: recurrent state carried to the next window, None for the initial one.
    rng: state of the generator of batches.  log_size: bytes of metrics.jsonl.  digest: of the data.
    facts: vocabulary and unit of text; columns, mean, std and tail of a series; lag of a task.
    """

    config: Config
    iteration: int
    network: Network
    optimiser: dict[str, Array]
    states: States | None
    rng: Mapping[str, Any]
    log_size: int
    digest: str
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write one file, whole or not at all."""
        facts = dict(self.facts)
        arrays = {f"facts/{name}": value for name, value in facts.pop("arrays", {}).items()}
        arrays |= {f"params/{name}": value for name, value in self.network.params.items()}
        arrays |= {f"optimiser/{name}": np.asarray(value) for name, value in self.optimiser.items()}
        for prefix, state in (self.states or {}).items():
            arrays |= {f"states/{prefix}/{i}": part for i, part in enumerate(state)}
        network = self.network
        info = {
            "iteration": self.iteration,
            "config": msgspec.to_builtins(self.config),
            "inputs": network.inputs,
            "outputs": network.outputs,
            "rng": dict(self.rng),
            "log_size": self.log_size,
            "digest": self.digest,
            "facts": facts,
        }
        write_arrays(path, arrays, format=FORMAT, schema=SCHEMA, info=info)

    @classmethod
    def load(cls, path: str | Path) -> "Checkpoint":
        """Read a file that `save` wrote.

        Raises:
            FileError: not there.  DamagedFile: truncated, altered, or no checkpoint.  NewerFile: of a later schema.
        """
        arrays, info = read_arrays(path, format=FORMAT, schema=SCHEMA)
        try:
            config = msgspec.convert(info["config"], Config)
            cell = make_cell(config.cell, config.hidden, **config.options)
            params = _under(arrays, "params/")
            network = Network(cell, info["inputs"], info["outputs"], config.layers, config.bidirectional, params)
            return cls(
                config, int(info["iteration"]), network, _under(arrays, "optimiser/"), _states(network, arrays),
                info["rng"], int(info["log_size"]), info["digest"],
                info["facts"] | {"arrays": _under(arrays, "facts/")},
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError, msgspec.ValidationError, BpttError) as error:
            got = f"a checkpoint that does not fit together ({str(error)[:80]})"
            raise DamagedFile(f"{path}", got=got, expected="a complete checkpoint") from None


def _under(arrays: dict[str, Array], prefix: str) -> Params:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _states(network: Network, arrays: dict[str, Array]) -> States | None:
    """The carried state, its parts in order; None where none was carried."""
    if not any(name.startswith("states/") for name in arrays):
        return None
    parts = range(len(network.cell.state_widths()))
    return {
        scan.prefix: network.cell.State(*(arrays[f"states/{scan.prefix}/{i}"] for i in parts))
        for scan in network.scans()
    }


def load_model(folder: str | Path) -> Checkpoint:
    """The newest intact checkpoint of a run; `.network` is the trained network.

    Raises:
        FileError: no run, or one without a checkpoint.  DamagedFile: no checkpoint is intact.
    """
    found = checkpoints(folder)
    if not found:
        read_config(folder)  # no run at all has its own message
        raise FileError(f"{folder}", got="a run without a checkpoint", do=f"Train it: bptt train --resume {folder}")
    return newest(found)


def newest(found: list[Path]) -> Checkpoint:
    """The first of these files that is intact. DamagedFile of the first if none is."""
    first: DamagedFile | None = None
    for path in found:
        try:
            return Checkpoint.load(path)
        except DamagedFile as error:
            first = first or error
    assert first is not None
    raise first
