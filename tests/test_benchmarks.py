"""The benchmark runs: a dry pass through every contender, so that it cannot rot. No time is anybody's business here."""

import json
from pathlib import Path

import pytest
from benchmarks.__main__ import destination, main, parser
from benchmarks.contenders import MAPS, RACE
from benchmarks.derive import row
from benchmarks.page import not_reached, page
from benchmarks.problem import CELLS, Shape, products
from benchmarks.program import SHORT
from benchmarks.race import build, judge, started
from benchmarks.spread import exponent, geometric_mean, quartiles
from benchmarks.targets import misses, targets

DOCS = Path(__file__).parents[1] / "docs"


def test_a_dry_pass_times_every_contender_and_writes_every_page(tmp_path, capsys):
    main(["--dry", "--out", str(tmp_path)])
    said = capsys.readouterr()
    results = json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))
    assert set(SHORT) <= set(results)
    for section, names in (("races", RACE), ("maps", MAPS)):
        assert [one["cell"] for one in results[section]] == list(CELLS)
        for one in results[section]:
            assert {name: found["status"] for name, found in one["results"].items()} == dict.fromkeys(names, "timed")
    assert all(one["status"] == "timed" for one in results["growth"])
    assert all(one["status"] == "measured" for name in ("growth_memory", "ledger_memory") for one in results[name])
    assert said.out == page(results) + "\n"
    assert (tmp_path / "benchmarks.md").read_text(encoding="utf-8") == page(results, "images/benchmarks.svg")
    assert "<dc:date>" not in (tmp_path / "images" / "benchmarks.svg").read_text(encoding="utf-8")


def test_the_page_in_docs_is_what_its_numbers_say():
    results = json.loads((DOCS / "benchmarks.json").read_text(encoding="utf-8"))
    assert (DOCS / "benchmarks.md").read_text(encoding="utf-8") == page(results, "images/benchmarks.svg")


@pytest.mark.parametrize("less", [["--quick"], ["--dry"], ["--only", "lstm"], ["--shapes", "0,3"], ["--no-write"]])
def test_less_than_everything_does_not_replace_the_pages(less):
    assert destination(parser().parse_args(less)) is None
    assert destination(parser().parse_args([])) == DOCS


def test_what_a_contender_cannot_do_is_its_result_and_not_the_end():
    with started(["reference"], threads=1) as children:
        failed = build(children["reference"], "key", "no such cell", Shape(2, 1, 2, 2))
        assert failed["status"].startswith("failed: UnknownName")
        assert build(children["reference"], "key", "rnn", Shape(2, 1, 2, 2))["status"] == "timed"


def answers(**found):
    return {name: {"status": "timed", "answer": answer} for name, answer in found.items()}


def test_who_finds_another_gradient_is_wrong():
    results = answers(reference=(1.0, 2.0), torch=(1.0, 2.0002), jax=(1.0, 2.01), keras=(0.9999, 2.0))
    judge(results)
    assert [name for name, found in results.items() if found["status"].startswith("wrong")] == ["jax"]
    two = answers(map=(1.0, 2.0), torch=(1.0, 2.1))
    judge(two)
    assert all(found["status"].startswith("wrong") for found in two.values())


def measured(ledger, compiled=1.0, peer=1.0, shares=1.1):
    times = {"compiled": compiled, "ledger": ledger, "shares": shares, "torch": peer, "jax": 2 * peer, "sgemm": 0.2}
    return {name: {"status": "timed", "times": [seconds] * 3} for name, seconds in times.items()}


def test_verdicts_follow_the_numbers():
    shape = Shape(128, 32, 512, 512)
    slow, fast = row("lstm", shape, measured(1.2)), row("lstm", shape, measured(0.5, compiled=0.49, shares=0.5))
    assert (slow.peer, slow.ratio) == ("torch", (1.2, 1.2, 1.2))
    assert slow.norms[0] == pytest.approx(0.2)
    assert fast.rate == products("lstm", shape) / 0.5
    verdicts = {one.what.split(": ")[-1]: one.reached for one in targets({}, [slow])}
    assert verdicts["geometric mean of 1"] is verdicts["worst"] is False
    assert verdicts["what a ledger with norms and gains adds to our step"] is False
    assert verdicts["what a ledger with shares as well adds to our step"] is True
    assert [one.reached for one in targets({}, [fast])[:5]] == [True] * 5
    assert "LSTM 128, 32, 512, 512: 1.20 times torch nn" in not_reached({}, [slow])
    assert "slower" in not_reached({}, [fast])
    assert (misses(slow), misses(fast)) == (["ratio", "ledger adds", "of sgemm"], [])


def test_what_is_not_complete_is_not_reached():
    shape = Shape(128, 32, 512, 512)
    fast, unknown = row("lstm", shape, measured(0.5, compiled=0.49)), row("gru", shape, {})
    mean, worst = targets({}, [fast, unknown])[:2]
    assert (mean.measured, mean.verdict, worst.verdict) == ("0.50; 1 not measured", "incomplete", "incomplete")
    assert targets({}, [unknown])[0].verdict == "not measured"
    assert targets({}, [unknown, row("gru", shape, measured(1.2))])[0].verdict == "NOT reached"


def test_who_was_wrong_is_no_peer_to_be_faster_than():
    results = measured(1.2)
    results["torch"]["status"] = "wrong: loss"
    assert row("gru", Shape(2, 1, 2, 2), results).peer == "jax"


def test_statistics():
    assert exponent([1, 10, 100], [3, 30, 300]) == pytest.approx(1)
    assert exponent([4, 16, 64], [2, 4, 8]) == pytest.approx(0.5)
    assert geometric_mean([0.5, 2, 1]) == pytest.approx(1)
    assert quartiles([1, 2, 3, 4, 5]) == (2, 4)
    assert quartiles([3, 1]) == (1, 3)


def test_products_are_counted_by_hand():
    """RNN, T = B = 1, X = 2, H = 3: forward 2·3 + 3·3, back 3·3, weights 2·3 + 3·3 multiply-adds."""
    assert products("rnn", Shape(1, 1, 2, 3)) == 2 * (15 + 9 + 15)
    assert products("lstm", Shape(7, 5, 2, 3)) == 4 * 35 * products("rnn", Shape(1, 1, 2, 3))
