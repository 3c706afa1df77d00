"""How a case of an attack ends, and the counts of a family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["OUTCOMES", "Result", "Tally"]

# The first two are well.
OUTCOMES = ("refused", "equal", "silent_wrong", "raw_traceback", "executed", "beyond_limits")
WELL = OUTCOMES[:2]
KEPT_FAILURES = 20  # of a family, in the report, and notes of what was measured


@dataclass
class Result:
    """How one case ended."""

    outcome: str
    what: str
    told: str
    seconds: float = 0.0
    megabytes: float = 0.0
    attempts: int = 1

    @property
    def well(self) -> bool:
        """Whether it ended as it must."""
        return self.outcome in WELL


@dataclass
class Tally:
    """Counts of a family, with its first failures; plain types, so that it can be written and read again."""

    cases: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    slowest_s: float = 0.0
    most_MB: float = 0.0
    attempts: int = 0
    measured: list[str] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: int, result: Result) -> None:
        """Count a case."""
        self.cases, self.attempts = case + 1, self.attempts + result.attempts
        self.counts[result.outcome] += 1
        self.slowest_s = max(self.slowest_s, round(result.seconds, 3))
        self.most_MB = max(self.most_MB, round(result.megabytes, 1))
        if result.outcome == "equal" and result.told and len(self.measured) < KEPT_FAILURES:
            self.measured.append(result.told)
        if not result.well and len(self.failures) < KEPT_FAILURES:
            self.failures.append({"case": case, **{k: getattr(result, k) for k in ("outcome", "what", "told")}})

    def __str__(self) -> str:
        found = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in self.counts.items() if number)
        return f"{self.cases} cases: {found}; slowest {self.slowest_s:.2f} s, most {self.most_MB:.0f} MB"
