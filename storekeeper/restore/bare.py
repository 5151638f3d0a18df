"""Databases that a reset leaves without any table: the application's own migrations make their schema, before anything else is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from storekeeper.outcomes import Failed, Problem, Refused, Severity, StorekeeperError, naming
from storekeeper.restore.plan import Live
from storekeeper.restore.trial import Applied, applied_in
from storekeeper.sets.context import Context


@dataclass(frozen=True)
class Bare:
    """Which databases become bare, what makes their schema, and what was applied in them; `unread` is why that is not known."""

    stores: tuple[str, ...]
    command: str
    before: Applied | None = None
    unread: StorekeeperError | None = None

    def to_json(self) -> dict[str, Any]:
        return {"stores": list(self.stores), "command": self.command}

    def notes(self) -> Iterator[Problem]:
        """What a person should know before saying yes."""
        for name in self.stores:
            yield Problem("it is left without any table, and the migrations make its schema", Severity.INFO, name)
        if self.unread is not None:
            yield Problem(f"which migrations are applied now cannot be told: {self.unread.message}", Severity.INFO, self.unread.store)

    def changed(self, applied: Applied | None) -> Iterator[Problem]:
        """That the schema is at another migration than before, which may be why somebody resets it, or a surprise."""
        if applied is not None and self.before is not None and applied != self.before:
            said = f"before the reset its schema was at {self.before.spoken}; the migrations have made {applied.spoken}"
            yield Problem(said, Severity.WARNING)


def foreseen(context: Context, live: Live) -> Bare | None:
    """None where every store keeps its own schema. Raises Refused for a database that is absent: what a command makes in it could not be
    taken back.
    """
    names = context.stack.left_bare
    if not names:
        return None
    for name in names:
        if name in live.absent:
            raise Refused("it is absent, so what the migrations make in it could not be taken back", store=name)
    spoken = context.stack.once_emptied[0].spoken
    try:
        return Bare(names, spoken, applied_in(context, context.stores))
    except StorekeeperError as error:
        return Bare(names, spoken, unread=error)


def refuse_unmade(context: Context, names: Sequence[str], spoken: str) -> Applied | None:
    """What the command has applied, where that is declared. Raises Failed for a database in which it made no table: nobody wants that
    called done, and its services could not run on it.
    """
    for name in names:
        with naming(name):
            if not context.stores[name].inspect().counts:
                raise Failed(f"{spoken} has made no table in it", store=name)
    return applied_in(context, context.stores)
