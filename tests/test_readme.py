"""The README says what the program says."""

from pathlib import Path

from bptt.report.lesson import answers
from bptt.train.lesson import lesson

ROOT = Path(__file__).parents[1]


def test_the_five_answers_are_those_of_the_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for question, answer in answers(lesson("the cat sat down"), "layer0.W_hh", "W_hh"):
        assert f"| {question} | {answer} |" in readme


def test_every_link_leads_somewhere():
    import re

    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
