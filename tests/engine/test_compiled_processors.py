"""Narrower vector registers than this machine has: the same numbers, from tiles of other sizes.

Each processor is a process of its own, which is told that it lacks what this one has. Its code is kept beside the rest.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, platform, sys
import llvmlite.binding as llvm

lacking, machine = sys.argv[1].split(","), sys.argv[2]
host = llvm.get_host_cpu_features()
fewer = type(host)({name: has and not name.startswith(tuple(lacking)) for name, has in host.items()})
llvm.get_host_cpu_features = lambda: fewer
if machine:
    platform.machine = lambda: machine

import numpy as np
from bptt.engine import gradient
from bptt.engine.compiled import emit
from oracles.bridge import call
from oracles.problems import make_problem

worst = 0.0
for B in (1, 2, 3, 5, 7, 8, 13, 18):
    for H in (1, 3, 8, 15, 17, 33):
        arguments, named = call(make_problem("rnn tanh", T=3, B=B, D=1 + B % 5, H=H, scale=0.3, loss="squared_error"))
        right, ours = (gradient(*arguments, engine=engine, **named) for engine in ("reference", "compiled"))
        pairs = [(ours.gradients[name], value) for name, value in right.gradients.items()] + [(ours.dx, right.dx)]
        worst = max(worst, *(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs))
print(json.dumps([emit.BYTES, emit.FUSED, emit.ROWS, worst]))
"""
OLD = "avx,fma,amx,f16c,xop,gfni,vaes,vpcl"
PROCESSORS = {
    "registers of 16 bytes, no fused products": (OLD, "", [16, False, 4]),
    "registers of 32 bytes": ("avx512,avx10,amx,avxvnni,avxifma,avxne", "", [32, True, 4]),
    "registers of 16 bytes, and many of them": (OLD + ",sse4", "aarch64", [16, True, 8]),
}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86 can play the others")
@pytest.mark.parametrize("processor", PROCESSORS)
def test_other_processors_get_the_same_numbers(processor):
    lacking, machine, shape = PROCESSORS[processor]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "NUMBA_CPU_NAME": "x86-64"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, lacking, machine], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *found, worst = json.loads(done.stdout)
    assert found == shape
    assert worst < 1e-13
