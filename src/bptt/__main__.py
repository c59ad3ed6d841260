"""`python -m bptt`, and the command `bptt`."""

import os
import sys


def start() -> None:
    """Run the command line; Ctrl-C while it is still loading ends it quietly."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy loads; a second thread only spins
    try:
        from bptt.cli.main import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    start()
