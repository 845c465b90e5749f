"""May this domain move to that host? Pure rules: facts in, findings out; `evaluate` runs all that apply."""

from ldoms.checks.evaluate import RULES, evaluate

__all__ = ["RULES", "evaluate"]
