"""What a verb hands back: the `result` of its document and the problems, from which the outcome and the exit code follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storekeeper.outcomes import Outcome, Problem, Severity


class Many:
    """A list in a `result` that may be too long for the memory: told one by one, as often as it is asked for."""

    def __init__(self, count: int, each: Callable[[], Iterator[Any]]) -> None:
        self._count = count
        self._each = each

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return self._each()


@dataclass(frozen=True)
class Report:
    """The end of a verb that ran. A verb that could not run raises a StorekeeperError instead.

    `outcome` is said where the problems alone do not decide it, as for a set that is bad or could not be tried.
    """

    result: Mapping[str, Any]
    problems: Sequence[Problem] = field(default_factory=tuple)
    outcome: Outcome | None = None

    def ended(self) -> Outcome:
        """Failed before unknown before warning before ok: the rule for several that apply."""
        if self.outcome is not None and self.outcome is not Outcome.OK:
            return self.outcome
        severities = {problem.severity for problem in self.problems}
        if Severity.ERROR in severities:
            return Outcome.FAILED
        return Outcome.WARNING if Severity.WARNING in severities else Outcome.OK
