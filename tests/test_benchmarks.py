"""The benchmark runs: a quick pass, so that it cannot rot. What it measures is nobody's business here."""

import json

from benchmarks.__main__ import main


def test_a_quick_pass_measures_everything(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick", "--json"])
    main()
    results = json.loads(capsys.readouterr().out)
    assert next(iter(results)) == "start-up"
    assert len(results) == 5
    assert all(isinstance(value, float) for figures in results.values() for value in figures.values())
