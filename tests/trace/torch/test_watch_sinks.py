"""Where records go: whole lines of JSON, few panels, buckets; and a place that fails costs nothing but itself."""

import json
import logging
import math
import warnings

import pytest
import torch
from torch import nn

import bptt
from bptt.errors import DamagedFile, FileError, InputError
from bptt.trace.torch.records import lags, panels, profiles
from bptt.trace.torch.sinks import JsonLines, sinks_of


def train(steps, layers=1, **options):
    torch.manual_seed(0)
    model = nn.LSTM(3, 4, layers)
    x = torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    with bptt.watch(model, **options) as probe:
        for _ in range(steps):
            optimiser.zero_grad()
            model(x)[0].square().mean().backward()
            optimiser.step()
    return probe


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Board:
    """A SummaryWriter as far as a watch knows it."""

    def __init__(self):
        self.scalars, self.histograms, self.flushed = [], [], 0

    def add_scalar(self, tag, value, step):
        self.scalars.append((tag, float(value), step))

    def add_histogram_raw(
        self, tag, min, max, num, sum, sum_squares, bucket_limits, bucket_counts, global_step=None
    ):  # fmt: skip
        assert len(bucket_limits) == len(bucket_counts)
        self.histograms.append((tag, min, max, num, sum, sum_squares, bucket_limits, bucket_counts, global_step))

    def flush(self):
        self.flushed += 1


class Metrics:
    """As MLflow and Comet have it; its `log` is something else."""

    def __init__(self):
        self.seen = []

    def log_metrics(self, metrics, step=None):
        self.seen.append((metrics, step))

    def log(self, *_):
        raise AssertionError


class Run:
    """As Weights & Biases have it."""

    def __init__(self):
        self.seen = []

    def log(self, data, step=None):
        self.seen.append((data, step))


# ---- files -----------------------------------------------------------------------------------------------------------


def test_each_look_is_one_line_that_is_there_at_once(tmp_path):
    path = tmp_path / "watch.jsonl"
    seen = []
    train(5, every=2, to=[str(path), lambda record: seen.append((record, lines(path)[-1]))])
    assert [r["step"] for r in lines(path)] == [0, 2, 4]
    assert all(record == line for record, line in seen)


def test_a_file_is_appended_to_and_a_torn_last_line_is_cut_off(tmp_path):
    path = tmp_path / "watch.jsonl"
    train(1, to=path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    train(1, to=path)
    assert len(lines(path)) == 2
    assert path.read_bytes().startswith(whole)
    path.write_bytes(path.read_bytes()[:-1])  # whole, but for its newline
    train(1, to=path)
    assert len(lines(path)) == 3


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("a line\nand no end")
    with pytest.raises(DamagedFile, match="a file that ends in something else"):
        train(1, to=path)
    assert path.read_text() == "a line\nand no end"


def test_a_path_that_cannot_be_written_is_said_before_training(tmp_path):
    with pytest.raises(FileError, match="cannot write"):
        bptt.watch(nn.LSTM(3, 4), to=tmp_path / "nowhere" / "watch.jsonl")
    with pytest.raises(FileError):
        bptt.watch(nn.LSTM(3, 4), to=tmp_path)


def test_what_json_does_not_have_becomes_null(tmp_path):
    path = tmp_path / "watch.jsonl"
    file = JsonLines(path)
    file.add({"a": math.nan, "b": [math.inf, 1.0], "c": {"d": -math.inf}, "e": "∂J"})
    file.close()
    file.add({"late": 1})
    assert path.read_text() == '{"a": null, "b": [null, 1.0], "c": {"d": null}, "e": "∂J"}\n'


def test_a_gradient_that_is_not_finite_is_a_verdict_and_no_crash(tmp_path):
    path, model = tmp_path / "watch.jsonl", nn.LSTM(3, 4)
    with bptt.watch(model, to=path):
        (model(torch.ones(5, 2, 3))[0].sum() * math.inf).backward()
    (record,) = lines(path)
    assert [line.split(":")[0] for line in record["verdicts"]] == ["BP501 not finite"]
    assert record["parameters"]["weight_hh_l0"]["norm"] is None


# ---- trackers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 4, 6])
def test_a_tracker_gets_at_most_twelve_numbers_and_one_histogram_for_each_layer(layers):
    board, metrics, run = Board(), Metrics(), Run()
    probe = train(4, layers, every=3, to=[board, metrics, run])
    assert [step for _, step in run.seen] == [0, 3]
    assert metrics.seen == run.seen
    drawn = run.seen[-1][0]
    assert len(drawn) <= 12
    assert all(tag.startswith("bptt/") and isinstance(value, float | int) for tag, value in drawn.items())
    assert [entry for entry in board.scalars if entry[2] == 3] == [(tag, float(v), 3) for tag, v in drawn.items()]
    assert drawn["bptt/loss"] == probe.last["loss"]
    assert len([h for h in board.histograms if h[-1] == 3]) == layers
    assert board.flushed == 1


def test_a_histogram_s_buckets_are_the_lags():
    board = Board()
    probe = train(1, to=board)
    norms = probe.ledger.state_norms("l0.")[::-1].astype(float)
    tag, low, high, num, total, squares, limits, counts, step = board.histograms[0]
    assert (tag, low, high, step) == ("bptt/l0/lag", 0, 15, 0)
    assert limits == [1, 2, 4, 8, 16]
    assert counts == pytest.approx([norms[0], norms[1], norms[2:4].sum(), norms[4:8].sum(), norms[8:].sum()])
    middles = [0, 1, 2.5, 5.5, 11.5]
    assert num == pytest.approx(norms.sum())
    assert total == pytest.approx(sum(m * c for m, c in zip(middles, counts, strict=True)))
    assert squares == pytest.approx(sum(m * m * c for m, c in zip(middles, counts, strict=True)))


def test_the_buckets_hold_everything_once():
    for n in range(1, 40):
        found = lags(torch.arange(1.0, n + 1).numpy())
        assert sum(found["sizes"]) == n * (n + 1) / 2
        assert found["edges"][-1] >= n
        assert len(found["sizes"]) == len(found["edges"]) - 1


def test_a_model_without_a_state_is_drawn_by_its_parameters():
    cell, run = nn.GRUCell(3, 4), Run()
    with bptt.watch(cell, to=run) as probe:
        h = torch.zeros(2, 4)
        for _ in range(9):
            h = cell(torch.ones(2, 3), h)
        h.sum().backward()
    assert run.seen[0][0]["bptt/weight_hh/reach"] == probe.last["parameters"]["weight_hh"]["reach"]
    assert len(run.seen[0][0]) <= 12
    edges, sizes = profiles(probe.last)["bptt/weight_hh/lag"]
    assert edges == [0, 1, 2, 4, 8, 16]
    assert sum(sizes) == pytest.approx(probe.ledger.norms("weight_hh").sum(), rel=1e-6)


def test_a_place_that_fails_is_off_after_one_warning_and_the_others_go_on():
    def broken(record):
        raise OSError("disk full\nat /dev/null")

    seen = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(4, every=1, to=[broken, logging.getLogger("not a tracker"), seen.append])
    said = [str(w.message) for w in caught]
    assert said[0] == "bptt.watch sends nothing more to broken: OSError: disk full"
    assert len(said) == 2
    assert "Logger" in said[1]
    assert [r["step"] for r in seen] == [0, 1, 2, 3]


def test_nothing_is_opened_where_one_of_several_is_of_no_use(tmp_path):
    with pytest.raises(InputError, match=r"got dict \{\}, expected a path, something with \.log"):
        sinks_of([tmp_path / "watch.jsonl", {}])
    assert not list(tmp_path.iterdir())


# ---- verdicts --------------------------------------------------------------------------------------------------------


def test_verdicts_are_those_of_the_rules_on_the_ledger():
    probe = train(1)
    assert probe.last["verdicts"] == []
    torch.manual_seed(0)
    model = nn.RNN(3, 8)
    with bptt.watch(model) as probe:
        model(torch.randn(80, 2, 3))[0][-1].square().sum().backward()
    (line,) = probe.last["verdicts"]
    assert line == str(bptt.diagnose(probe.ledger).findings[0])
    assert line.startswith("BP101 vanishing: l0: ∂J/∂s falls below 1 % of its size within ")


def test_panels_leave_out_what_is_not_known():
    probe = train(1)
    record = probe.last | {"loss": None}
    assert "bptt/loss" not in panels(record)
