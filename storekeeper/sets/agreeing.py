"""What the restored copies of one set disagree about, by the stack's rules: all of a rule's stores are open at once, and stand still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from types import TracebackType
from typing import Any

from storekeeper.consistency.checking import Checking, Look
from storekeeper.consistency.findings import Class
from storekeeper.host import space
from storekeeper.outcomes import Outcome, Problem, Severity, StorekeeperError, said_by_the_system
from storekeeper.sets.context import Context
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.repository import SetEntry
from storekeeper.sets.scratch import scratch_directory
from storekeeper.stack.rules import Rule
from storekeeper.stores.protocol import Copy

_SAMPLES = 3  # of a rule, in its sentence
_NO_ROOM = "the copies of all its stores have no room beside each other"


class Agreeing:
    """The copies that rules need, kept open from their proof to their comparison. A context manager, which lets go of them.

    Copies beside each other need room for all of them: where there is less, they are proven one after the other, as without rules, and
    what they agree on is unknown.
    """

    def __init__(self, context: Context, entry: SetEntry, manifest: Manifest) -> None:
        self._context = context
        self._entry = entry
        self._rules = context.stack.consistency
        self._copies: dict[str, Copy] = {}
        self._open = ExitStack()
        self._stores = frozenset(store for rule in self._rules.values() for store in _stores_of(rule)) & frozenset(manifest.stores)
        self._has_room = self._sum(manifest) <= space.free_bytes(context.scratch)
        self.problems: list[Problem] = []

    def __enter__(self) -> Agreeing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._let_go()

    def needs(self, name: str) -> bool:
        return self._has_room and name in self._stores

    def keep(self, name: str, copy: Copy, opened: ExitStack) -> None:
        """A copy that was proven; `opened` closes it."""
        self._open.push(opened)
        self._copies[name] = copy

    def gave_way(self) -> bool:
        """Let go of all copies, since the disk is full; False where there was none to let go of."""
        had_any = bool(self._copies)
        self._has_room = False
        self._let_go()
        return had_any

    def compared(self) -> dict[str, Any]:
        """By rule its outcome, documents and counts; `problems` says the rest."""
        if not self._rules:
            return {}
        with scratch_directory(self._context) as work:
            checking = Checking(self._copies, self._context.state, work, self._context.progress)
            found = {name: self._compared(checking, name, rule) for name, rule in self._rules.items()}
        self._let_go()
        return found

    def _compared(self, checking: Checking, name: str, rule: Rule) -> dict[str, Any]:
        missing = [store for store in _stores_of(rule) if store not in self._copies]
        if missing:
            why = f"there is no proven copy of {', '.join(missing)}" if self._has_room else _NO_ROOM
            following = None if self._has_room else "set `scratch:` in storekeeper.yml to a directory with room"
            self._say(f"nothing is known of the rule {name}: {why}", following=following)
            return {"outcome": Outcome.UNKNOWN, "documents": None, "counts": {**{str(kind): 0 for kind in Class}, "in_flight": 0}}
        look = checking.still(name, rule, self._entry.time)
        self._tell(name, look)
        counts = {**{str(kind): look.counted.of(kind) for kind in Class}, "in_flight": look.tally.in_flight if look.tally else 0}
        return {"outcome": look.outcome, "documents": look.tally.documents if look.tally else None, "counts": counts}

    def _tell(self, name: str, look: Look) -> None:
        for problem in look.problems:
            self._say(problem.message, problem.store, problem.next)
        if look.findings.count:
            counts = ", ".join(f"{look.counted.of(kind):,} {kind}" for kind in Class if look.counted.of(kind))
            samples = ", ".join(_samples(look))
            self._say(f"rule {name}: its stores disagreed when it was taken, {counts}, such as {samples}")
        if look.tally is not None and look.tally.in_flight:
            said = f"rule {name}: {look.tally.in_flight:,} documents were being worked on when it was taken"
            self._say(said, severity=Severity.INFO)

    def _say(self, message: str, store: str | None = None, following: str | None = None, severity: Severity = Severity.WARNING) -> None:
        self.problems.append(Problem(f"set {self._entry.id}: {message}", severity, store, following))

    def _let_go(self) -> None:
        """Copies that cannot be removed tell nothing of the set."""
        self._copies.clear()
        try:
            self._open.close()
        except StorekeeperError as error:
            self._say(error.message, error.store, error.next)
        except OSError as error:
            self._say(f"a scratch copy could not be removed: {said_by_the_system(error)}")

    def _sum(self, manifest: Manifest) -> int:
        """The copies that stay, and the largest of the others, which come and go."""
        stay = sum(manifest.stores[name].bytes for name in self._stores)
        return stay + max((record.bytes for name, record in manifest.stores.items() if name not in self._stores), default=0)


def _stores_of(rule: Rule) -> tuple[str, ...]:
    return tuple(dict.fromkeys((rule.authority.store, *rule.stores)))


def _samples(look: Look) -> Iterator[str]:
    for each in islice(look.findings, _SAMPLES):
        yield f"{each.kind} {each.document[:80]!r} in {each.place}"
