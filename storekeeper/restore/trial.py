"""A migration on copies: the stores that its command is told of, out of the newest proven set, restored into scratch places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from storekeeper.host import clock
from storekeeper.outcomes import Failed, Refused, naming
from storekeeper.restore import commands
from storekeeper.runtimes.commands import user_of
from storekeeper.sets.context import Context
from storekeeper.sets.copies import opened_copy
from storekeeper.sets.repository import SetEntry
from storekeeper.stack.migrations import MigrationCommand
from storekeeper.stack.queries import MOST_ROWS
from storekeeper.stores.protocol import Copy, Store
from storekeeper.stores.questions import Question


@dataclass(frozen=True)
class Applied:
    """What the application says is applied, the newest first."""

    names: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        return {"newest": self.names[0] if self.names else None, "count": len(self.names)}

    @property
    def spoken(self) -> str:
        return f"{self.names[0]}, the last of {len(self.names)}" if self.names else "no migration"


@dataclass(frozen=True)
class Typed:
    """A declared command with the words that were typed for it."""

    action: str
    command: MigrationCommand
    words: Mapping[str, str]

    @property
    def spoken(self) -> str:
        return " ".join([self.command.spoken, *self.words.values()])


@dataclass(frozen=True)
class Tried:
    """How the command ended on copies: what was applied there before and after, and whether it changed anything."""

    before: Applied | None
    after: Applied | None
    changed: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {"changed": self.changed, "applied": self.after and self.after.to_json(), "seconds": self.seconds}


def applied_in(context: Context, stores: Mapping[str, Store]) -> Applied | None:
    """Ask these stores; None where the stack does not declare how. Raises what the store raises."""
    asked = context.stack.migration.applied if context.stack.migration else None
    if asked is None:
        return None
    with naming(asked.store):
        found = stores[asked.store].answer(Question(asked.query, {}, MOST_ROWS))
    return Applied([str(row[0]) for row in found.rows])


def tried(context: Context, entry: SetEntry, wanted: Sequence[Typed]) -> Tried:
    """Run these commands, one after the other, on copies of the stores they name. The set is in use, and proven.

    Raises Failed with what a command said, Refused where the copy is not at the migration that is live, and Unknown where no copy can be
    made here. The live stores are only asked: Failed where one of them was changed all the same.
    """
    started = clock.monotonic()
    live = applied_in(context, context.stores)
    with _copies(context, entry, wanted) as copies:
        before = applied_in(context, copies)
        _refuse_other_migration(context, entry, before, live)
        fingerprints = {name: copy.fingerprint() for name, copy in copies.items()}
        objects = _objects(context, copies)
        for each in wanted:
            _run(context, each, copies, entry)
        changed = any(copy.fingerprint() != fingerprints[name] for name, copy in copies.items())
        after = applied_in(context, copies)
    _refuse_changed_live(context, live, objects)
    return Tried(before, after, changed, round(clock.monotonic() - started, 3))


@contextmanager
def _copies(context: Context, entry: SetEntry, wanted: Sequence[Typed]) -> Iterator[Mapping[str, Copy]]:
    names = [name for each in wanted for name in each.command.names()]
    asked = context.stack.migration.applied if context.stack.migration else None
    names += [asked.store] if asked else []
    if entry.manifest is None:
        raise Refused(f"set {entry.id} is {entry.state}: {entry.reason}", next=f"storekeeper list {context.stack.stack}")
    with ExitStack() as held:
        copies: dict[str, Copy] = {}
        for name in dict.fromkeys(names):
            context.progress.step(name, "restoring a copy")
            with naming(name):
                copies[name] = held.enter_context(opened_copy(context, entry, entry.manifest, name))
        yield copies


def _run(context: Context, typed: Typed, copies: Mapping[str, Copy], entry: SetEntry) -> None:
    context.progress.step(None, f"trying {typed.spoken} on a copy")
    user = user_of(typed.command)
    for name in typed.command.names():
        copies[name].lend(user)
    try:
        commands.carry_out_on(context, typed.command, copies, typed.words)
    except Failed as error:
        said = f"on a copy of set {entry.id}: {error.message}; the live data was not touched"
        raise Failed(said, store=error.store, next=error.next) from error


def _objects(context: Context, copies: Mapping[str, Copy]) -> Mapping[str, Sequence[str]]:
    """The tables, collections and the like of the live stores that have copies."""
    return {name: sorted(context.stores[name].inspect().counts) for name in copies}


def _refuse_other_migration(context: Context, entry: SetEntry, copied: Applied | None, live: Applied | None) -> None:
    """What is tried on another schema than the live one tells nothing of the live one."""
    if copied is not None and live is not None and copied != live:
        stack = context.stack.stack
        said = f"set {entry.id}, the newest proven one, is at {copied.spoken}; what is live is at {live.spoken}"
        raise Refused(said, next=f"storekeeper backup {stack}, then storekeeper prove {stack}")


def _refuse_changed_live(context: Context, before: Applied | None, objects: Mapping[str, Sequence[str]]) -> None:
    """A command that is told of a store and looks elsewhere changes what is live, without a safety set."""
    gone_elsewhere = before is not None and applied_in(context, context.stores) != before
    for name, known in objects.items():
        if gone_elsewhere or sorted(context.stores[name].inspect().counts) != known:
            said = (
                f"it was changed while the command ran on a copy: the command does not go where {{{name}}} says, or the application did it"
            )
            raise Failed(said, store=name, next=f"storekeeper restore {context.stack.stack} latest --plan")
