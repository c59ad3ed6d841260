"""`python -m bptt`, and the command `bptt`."""

import sys


def start() -> None:
    """Run the command line; Ctrl-C while it is still loading ends it quietly."""
    try:
        from bptt.cli.main import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    start()
