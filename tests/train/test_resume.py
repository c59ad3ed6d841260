"""A run that was stopped, killed or failed goes on to the bytes of a run that never was."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors

import bptt.storage
from bptt.errors import BusyError, DamagedFile, FileError, InputError, NotFiniteError
from bptt.train import configure, fit, load_model
from bptt.train.folder import RunFolder, read_config
from bptt.train.metrics import read_metrics
from bptt.train.saved import Checkpoint

TEXT = "the cat sat on the mat and the dog sat on the log. " * 60
EVERY = {"probe_every": 20, "sample_every": 15, "validate_every": 10, "checkpoint_every": 7}
RUNS = {
    "text": {"hidden": 16, "steps": 8, "batch": 4, "cell": "lstm", "iterations": 90},
    "task": {
        "data": "adding:12", "hidden": 16, "batch": 4, "cell": "gru", "iterations": 90, "optimiser": "sgd",
        "learning_rate": 0.05, "momentum": 0.9,
    },
}  # fmt: skip


@pytest.fixture(params=RUNS)
def config(request, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    options = {"data": tmp_path / "text.txt"} | RUNS[request.param] | EVERY
    return configure(**options)


def text_config(tmp_path, **options):
    (tmp_path / "text.txt").write_text(TEXT)
    return configure(tmp_path / "text.txt", **RUNS["text"] | EVERY | options)


def contents(folder):
    """Every file's bytes; of safetensors the sum over all arrays and info, since its header has no fixed order."""
    names = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): content(path) for path in names}


def content(path):
    if path.suffix != ".safetensors":
        return path.read_bytes()
    with safetensors.safe_open(path, framework="np") as file:
        return file.metadata()["sha256"]


def start(config, folder, *, resume=False):
    """A run in another process, which says "go" on its first line of progress."""
    code = (
        "import sys; from bptt.train import fit, Config; from rich.console import Console\n"
        "config = None if sys.argv[1] == '-' else Config.from_json(sys.argv[1])\n"
        "done = fit(config, folder=sys.argv[2], resume=config is None, console=Console(force_terminal=False))\n"
        "print('interrupted' if done.interrupted else 'finished')\n"
    )
    arguments = [sys.executable, "-u", "-c", code, "-" if resume else config.to_json(), str(folder)]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # small products only wait for a second thread
    return subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextlib.contextmanager
def running(*args, **options):
    process = start(*args, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_run_killed_again_and_again_ends_with_the_bytes_of_an_unbroken_one(config, tmp_path):
    with running(config, tmp_path / "unbroken") as process:
        assert "finished" in process.stdout.read()
    rng, kills, resume = np.random.default_rng(0), 0, False
    while True:
        with running(config, tmp_path / "broken", resume=resume) as process:
            resume = resume or wait_for(tmp_path / "broken" / "config.json")
            time.sleep(float(rng.uniform(0.0, 0.12)) + 0.25 * resume * (kills > 0))
            if kills == 3:
                assert "finished" in process.stdout.read()
                break
            process.send_signal(signal.SIGKILL)
            kills += 1
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


def wait_for(path, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists():
            return True
        time.sleep(0.002)
    raise AssertionError(f"{path} did not appear")


def killed_at(config, folder, monkeypatch, iteration):
    """A run of this process that dies, without cleaning up, before its iteration-th gradient."""
    from bptt.train import loop

    count, real = iter(range(1, 10**6)), loop.gradient

    def dying(*args, **options):
        if next(count) == iteration:
            raise Killed
        return real(*args, **options)

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(loop, "gradient", dying)
        fit(config, folder=folder)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("iteration", [1, 2, 7, 8, 15, 33, 89, 90])
def test_wherever_it_breaks_off_it_goes_on_to_the_same_bytes(config, tmp_path, monkeypatch, iteration):
    fit(config, folder=tmp_path / "unbroken")
    killed_at(config, tmp_path / "broken", monkeypatch, iteration)
    result = fit(folder=tmp_path / "broken", resume=True)
    assert not result.interrupted
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


def test_a_finished_run_goes_on_further_like_one_that_was_meant_to(tmp_path):
    long = fit(text_config(tmp_path, iterations=40), folder=tmp_path / "long")
    fit(text_config(tmp_path, iterations=25), folder=tmp_path / "short")
    further = fit(folder=tmp_path / "short", resume=True, iterations=40)
    losses = [[e["loss"] for e in r.events if e["kind"] == "train"] for r in (long, further)]
    assert losses[0] == losses[1]
    assert further.validation == long.validation


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first = fit(text_config(tmp_path, iterations=10), folder=tmp_path / "run")
    before = contents(tmp_path / "run")
    again = fit(folder=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before
    assert again.validation == first.validation
    assert again.check == first.check


def test_fewer_iterations_than_done_are_refused(tmp_path):
    fit(text_config(tmp_path, iterations=10), folder=tmp_path / "run")
    with pytest.raises(InputError, match="at least 10"):
        fit(folder=tmp_path / "run", resume=True, iterations=5)


def test_one_ctrl_c_finishes_the_iteration_and_the_rest_follows_later(tmp_path):
    config = text_config(tmp_path, iterations=400)
    with running(config, tmp_path / "run") as process:
        process.stdout.readline()
        wait_for(tmp_path / "run" / "checkpoints" / "iteration-000007.safetensors")
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait() == 0
    assert "Stopping after this iteration" in said
    assert said.rstrip().endswith("interrupted")
    stopped = load_model(tmp_path / "run").iteration
    assert 7 <= stopped < 400
    with running(None, tmp_path / "run", resume=True) as process:
        assert "finished" in process.stdout.read()
    with running(config, tmp_path / "unbroken") as process:
        assert "finished" in process.stdout.read()
    assert contents(tmp_path / "run") == contents(tmp_path / "unbroken")


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    from bptt.train import loop

    monkeypatch.setattr(loop, "gradient", lambda *args, **options: [signal.raise_signal(signal.SIGINT) for _ in "ab"])
    with pytest.raises(KeyboardInterrupt):
        fit(text_config(tmp_path), folder=tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_two_processes_never_train_in_one_folder(tmp_path):
    with running(text_config(tmp_path, iterations=10**6), tmp_path / "run") as process:
        wait_for(tmp_path / "run" / "config.json")
        with pytest.raises(BusyError, match="another process is training"):
            fit(folder=tmp_path / "run", resume=True)
        process.kill()
        process.wait()
        assert opened_again(tmp_path / "run").iterations == 10**6  # the lock died with its process


def opened_again(folder):
    with RunFolder(folder, resume=True):
        return read_config(folder)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "altered":
        data[-5] ^= 1
    else:
        data = b"something else"
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("how", ["truncated", "altered", "foreign"])
def test_a_damaged_newest_checkpoint_costs_time_but_no_number(tmp_path, how):
    config = text_config(tmp_path, iterations=20)
    fit(config, folder=tmp_path / "unbroken")
    fit(config, folder=tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / "iteration-000020.safetensors", how)
    assert load_model(tmp_path / "run").iteration == 14
    fit(folder=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "unbroken")


def test_if_both_checkpoints_are_damaged_the_error_names_the_file(tmp_path):
    fit(text_config(tmp_path, iterations=20), folder=tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        damage(path, "altered")
    with pytest.raises(DamagedFile, match=r"iteration-000020.*checksum"):
        fit(folder=tmp_path / "run", resume=True)


def test_a_checkpoint_with_a_part_missing_is_damaged(tmp_path):
    fit(text_config(tmp_path, iterations=2), folder=tmp_path / "run")
    saved = load_model(tmp_path / "run")
    del saved.network.params["readout.b"]
    saved.save(tmp_path / "part.safetensors")
    with pytest.raises(DamagedFile, match="does not fit together"):
        Checkpoint.load(tmp_path / "part.safetensors")


def test_other_data_than_it_began_with_is_refused(tmp_path):
    fit(text_config(tmp_path, iterations=20), folder=tmp_path / "run")
    (tmp_path / "text.txt").write_text(TEXT.replace("cat", "cow"))
    with pytest.raises(FileError, match="other data"):
        fit(folder=tmp_path / "run", resume=True, iterations=30)


def test_a_log_that_was_cut_is_damaged(tmp_path):
    fit(text_config(tmp_path, iterations=20), folder=tmp_path / "run")
    os.truncate(tmp_path / "run" / "metrics.jsonl", 10)
    with pytest.raises(DamagedFile, match="metrics"):
        fit(folder=tmp_path / "run", resume=True, iterations=30)


@pytest.mark.parametrize("path", ["nothing", "file/run"])
def test_what_is_no_run_cannot_be_resumed(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="expected the folder of a run"):
        fit(folder=tmp_path / path, resume=True)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write"):
        fit(text_config(tmp_path), folder=tmp_path / "file" / "run")


def test_a_full_disk_at_the_start_leaves_nothing_behind(tmp_path, monkeypatch):
    config = text_config(tmp_path)
    monkeypatch.setattr(bptt.storage.os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        fit(config, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_costs_no_number(tmp_path, monkeypatch):
    config, real, count = text_config(tmp_path, iterations=40), os.write, iter(range(100))
    fit(config, folder=tmp_path / "unbroken")

    def half(handle, data):
        if next(count) < 3:
            return real(handle, data)
        return real(handle, data[: len(data) // 2]) if len(data) > 10 else full()

    with monkeypatch.context() as patch, pytest.raises(FileError, match=r"cannot write .*metrics\.jsonl.*No space"):
        patch.setattr(os, "write", half)
        fit(config, folder=tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().endswith(b"\n")
    assert not list((tmp_path / "run").rglob("*.partial"))
    fit(folder=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "unbroken")


def test_what_lies_beyond_the_checkpoint_is_gone_before_anything_is_trained(tmp_path, monkeypatch):
    fit(text_config(tmp_path, iterations=20), folder=tmp_path / "run")
    run = tmp_path / "run"
    (run / "checkpoints" / "iteration-000020.safetensors").unlink()  # as if it had been killed after iteration 14
    (run / "ledgers" / ".iteration-000020.safetensors.abc.partial").write_bytes(b"half")
    monkeypatch.setattr("bptt.train.loop.gradient", stop)
    with contextlib.suppress(Killed):
        fit(folder=run, resume=True)
    assert [path.name for path in (run / "ledgers").iterdir()] == ["iteration-000000.safetensors"]
    assert b'"iteration": 15' not in (run / "metrics.jsonl").read_bytes()
    assert b'"iteration": 14' in (run / "metrics.jsonl").read_bytes()


def stop(*args, **options):
    raise Killed


def test_a_run_that_explodes_keeps_its_history_and_is_cut_back_to_its_checkpoint_on_resume(tmp_path):
    config = configure(
        "adding:12", hidden=8, batch=4, iterations=60, optimiser="sgd", learning_rate=1.0, clip_norm=0.0, cell="rnn",
        options={"nonlinearity": "relu"}, checkpoint_every=3, probe_every=0,
    )  # fmt: skip
    with pytest.raises(NotFiniteError, match="iteration") as first:
        fit(config, folder=tmp_path / "run")
    events = read_metrics(tmp_path / "run")
    said = [event["iteration"] for event in events if event["kind"] == "train"]
    assert said == list(range(1, len(said) + 1))
    assert f"iteration {len(said) + 1}," in str(first.value)
    assert said[-1] > load_model(tmp_path / "run").iteration
    before = contents(tmp_path / "run")
    with pytest.raises(NotFiniteError) as second:
        fit(folder=tmp_path / "run", resume=True)
    assert str(second.value) == str(first.value)
    assert contents(tmp_path / "run") == before


def test_omega_flossing_and_jacobian_samples_go_on_to_the_same_bytes(tmp_path):
    config = configure(
        "adding:12", hidden=6, batch=4, iterations=20, cell="rnn", omega=1.0, floss=2, jacobian_every=3,
        probe_every=5, checkpoint_every=7,
    )  # fmt: skip
    fit(config, folder=tmp_path / "whole")

    def stop(n):
        if n == 13:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(config, folder=tmp_path / "stopped", each=stop)
    fit(folder=tmp_path / "stopped", resume=True)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
