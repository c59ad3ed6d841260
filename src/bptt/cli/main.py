"""The command line: one file per command, one line per error, exit code 0 fine, 1 a finding, 2 bad input."""

import contextlib
import io
import os
import sys
from collections.abc import Sequence

import cyclopts

from bptt.errors import BpttError
from bptt.version import VERSION

FINE, BAD_INPUT, INTERRUPTED = 0, 2, 130

app = cyclopts.App(
    name="bptt",
    help="Backpropagation through time, in the open: where in time a recurrent network learns from.",
    version=VERSION,
    version_flags=["--version"],
    help_format="plaintext",
    default_parameter=cyclopts.Parameter(negative=()),
)
COMMANDS = ("explain", "train", "check", "report", "compare", "audit", "show", "sample", "export")
for place, command in enumerate(COMMANDS):  # the file of a command is imported when it runs
    app.command(f"bptt.cli.{command}:{command}", name=command, sort_key=place)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that has no ∂ shows ? and not a traceback
            stream.reconfigure(errors="replace")
    if os.environ.get("COLUMNS", "1") == "0":  # some shells say so when they do not know
        del os.environ["COLUMNS"]
    try:
        if not argv or argv[0].startswith("-"):
            for command in COMMANDS:  # the list of commands shows the first line of each
                app[command]
        result = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return result if isinstance(result, int) else FINE
    except BpttError as error:
        return complain(str(error))
    except cyclopts.CycloptsError as error:
        command = " ".join(error.command_chain or [])
        return complain(f"{_first_sentence(error)} Try: bptt {command} --help".replace("  ", " "))
    except BrokenPipeError:  # the reader of our output has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at the end
        return FINE
    except MemoryError:
        return complain("not enough memory for that: use fewer hidden units, steps or sequences")
    except OSError as error:  # of the output itself: files are written by `bptt.storage`, which says which one it was
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return complain(f"cannot write the output: {error.strerror or error}")
    except KeyboardInterrupt:
        return complain("stopped", INTERRUPTED)


def complain(line: str, code: int = BAD_INPUT) -> int:
    """One line on standard error."""
    sys.stderr.write(f"bptt: {line}\n")
    return code


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.replace("?.", "?") if text.endswith((".", "?")) else text + "."
