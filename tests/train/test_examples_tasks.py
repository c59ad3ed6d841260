"""The two examples learn what they say, with the seed they say, each in its own process with one BLAS thread."""

import json
import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def numbers(name):
    code = "import json, sys; sys.path.insert(0, sys.argv[1]); import %s as example; print(json.dumps(example.main()))"
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", code % name, str(EXAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_an_lstm_learns_to_add_over_100_steps_and_a_tanh_rnn_does_not():
    found = numbers("adding_problem")
    assert found["lstm"] <= 0.01
    assert found["rnn"] > 0.1
    assert found["baseline"] == 1 / 6


def test_copy_memory_at_lag_20_is_solved_from_an_orthogonal_start_only():
    found = numbers("copy_memory")
    assert found["orthogonal"] >= 0.99
    assert found["glorot"] < 0.9
