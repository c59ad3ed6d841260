"""The rules, one file for each family; `bptt.diagnose.verdicts` applies them, docs/verdicts.md explains them."""

from bptt.diagnose.rules import chaos, cuts, ends, numbers, reach, training, uses
from bptt.diagnose.rules.rule import Cut, Rule, Seen, cell_of, cell_of_ledger, cut_of

FAMILIES = (reach, chaos, cuts, uses, ends, training, numbers)
RULES: dict[str, Rule] = {rule.code: rule for family in FAMILIES for rule in family.RULES}

__all__ = ["RULES", "Cut", "Rule", "Seen", "cell_of", "cell_of_ledger", "cut_of"]
