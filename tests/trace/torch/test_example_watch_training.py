"""The example of a watch learns what it says, and shows the reach growing before the error falls."""

import json
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_reach_grows_and_then_the_error_falls():
    code = "import json, sys; sys.path.insert(0, sys.argv[1]); import watch_training as e; print(json.dumps(e.main()))"
    command = [sys.executable, "-W", "error", "-c", code, str(EXAMPLES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["step"] == list(range(0, 700, 100))
    assert found["reach"][0] <= 10
    assert found["reach"][-1] == 40
    assert found["loss"][-1] < 0.01 < 0.1 < min(found["loss"][:4])
    assert "BP101 vanishing: lstm.l0: " in done.stdout
