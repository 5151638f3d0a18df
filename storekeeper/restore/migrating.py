"""A migration by the application's own command: on a copy of the newest proven set first, then live, kept or taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storekeeper.host import space
from storekeeper.outcomes import Failed, Problem, Refused, Severity
from storekeeper.restore import commands
from storekeeper.restore.interruption import Interruption
from storekeeper.restore.journal import Journal, Step
from storekeeper.restore.migration import Migrating
from storekeeper.restore.plan import Live, RestoreRequest, add_up, choose, foresee_all, look_at_live, safety_need, told_space, told_stores
from storekeeper.restore.restoring import begin, take_safety_set
from storekeeper.restore.trial import Applied, Tried, Typed, applied_in, tried
from storekeeper.restore.walk import MIGRATION
from storekeeper.runtimes.commands import refuse_unless_there
from storekeeper.sets.context import Context, Opened
from storekeeper.sets.repository import SetEntry
from storekeeper.stack.migrations import CHANGING, TEST, Migration, MigrationCommand
from storekeeper.stores.protocol import Foresight


@dataclass(frozen=True)
class Migrated:
    """The `result` of the contract, and what to say beside it. `is_changed` says whether anything live was."""

    result: dict[str, Any]
    problems: tuple[Problem, ...]
    is_changed: bool = False


def chosen(context: Opened, action: str, values: Sequence[str]) -> Typed:
    """A declared command with its words. Raises Refused where it is not declared, or takes other words."""
    stack, migration = context.stack.stack, context.stack.migration or Migration.model_construct()
    command = migration.commands().get(action)
    if command is None:
        known = ", ".join(migration.commands()) or "none"
        raise Refused(f"{stack} declares no command for {action}; it declares {known}", next=f"declare `migration: {{{action}: ...}}`")
    if len(values) != len(command.arguments):
        wanted = ", ".join(command.arguments) or "none"
        usage = " ".join(["storekeeper migrate", stack, action, *(each.upper() for each in command.arguments)])
        raise Refused(f"{action} takes {len(command.arguments)} words ({wanted}), {len(values)} were given", next=usage)
    for each in values:
        if "\0" in each or len(each) > 1000:
            raise Refused(f"a word for {action} is no text of at most 1000 signs")
    return Typed(action, command, dict(zip(command.arguments, values, strict=True)))


def on_a_copy(context: Context, action: str, values: Sequence[str]) -> Sequence[Typed]:
    """What is run on the copy: a test after the upgrade that it is for, where both are declared."""
    test = context.stack.migration.test if context.stack.migration else None
    if action == TEST:
        upgrade = _without_words(context, "upgrade")
        tests = [chosen(context, action, values)] if test is not None or upgrade is None or values else []
        return [*([upgrade] if upgrade else []), *tests]
    wanted = chosen(context, action, values)
    return [wanted, Typed(TEST, test, {})] if action == "upgrade" and test is not None and not test.arguments else [wanted]


def ask(context: Opened, action: str, values: Sequence[str]) -> Migrated:
    """What a command that changes nothing says. It is the application's own: that it only reads is its promise."""
    wanted = chosen(context, action, values)
    refuse_unless_there(wanted.command)
    output = commands.carry_out(context, wanted.command, wanted.words)
    return Migrated({"action": action, "command": wanted.spoken, "output": output}, ())


def plan(context: Context, action: str, values: Sequence[str]) -> Migrated:
    """What a migration would run, stop and need. Runs nothing."""
    looked = _look(context, action, values)
    stores = told_stores(looked.live, looked.foreseen)
    told = {
        "action": action,
        "commands": [each.spoken for each in looked.wanted],
        "set": looked.entry.id,
        "applied": looked.applied and looked.applied.to_json(),
        "stores": {name: {key: each[key] for key in ("counts_now", "bytes_needed")} for name, each in stores.items()},
        "services": looked.stops if action in CHANGING else [],
        "space": looked.space,
    }
    return Migrated({"plan": told}, looked.problems)


def migrate_stores(context: Context, action: str, values: Sequence[str]) -> Migrated:
    """Carry a migration out, or for `test` its first half, which ends with the copy.

    Raises Refused, Unknown and Failed while nothing live was changed; later Failed, with everything as it was before.
    """
    looked = _look(context, action, values)
    with context.sets.using(looked.entry):
        trial = tried(context, looked.entry, looked.wanted)
    facts = {"action": action, "command": looked.wanted[0].spoken, "set": looked.entry.id, "trial": trial.to_json()}
    if action == TEST:
        return Migrated({**facts, **_untouched(looked)}, looked.problems)
    if not trial.changed and trial.before is not None:
        note = Problem("it changes nothing on a copy at the same migration, so it was not run on what is live", Severity.INFO)
        return Migrated({**facts, **_untouched(looked)}, (*looked.problems, note))
    return _live(context, looked, trial, facts)


@dataclass(frozen=True)
class _Looked:
    wanted: Sequence[Typed]
    entry: SetEntry
    live: Live
    foreseen: Mapping[str, Foresight]
    applied: Applied | None
    stops: list[str]
    space: dict[str, dict[str, int]]
    problems: tuple[Problem, ...]


def _look(context: Context, action: str, values: Sequence[str]) -> _Looked:
    """Everything that can be known before anything is run. Raises every reason against it."""
    wanted = on_a_copy(context, action, values)
    for each in wanted:
        refuse_unless_there(each.command)
    entry = _newest_proven(context)
    request = RestoreRequest(set=entry.id)
    live = look_at_live(context, request)
    if live.absent:
        raise Refused("it is absent, so nothing of it could be taken back", store=live.absent[0])
    manifest = entry.manifest
    if manifest is None:
        raise Refused(f"set {entry.id} is {entry.state}: {entry.reason}", next=f"storekeeper list {context.stack.stack}")
    stores = choose(context, manifest, ())
    foreseen = foresee_all(stores, entry.path, manifest.stores, live)
    needs = add_up([safety_need(context, live), *(each.bytes_needed for each in foreseen.values())])
    found = space.check(needs, purpose="a migration, with its way back,", next=f"storekeeper prune {context.stack.stack}")
    return _Looked(
        wanted=wanted,
        entry=entry,
        live=live,
        foreseen=foreseen,
        applied=applied_in(context, context.stores),
        stops=[each.label for each in context.services if each.is_running()],
        space=told_space(found),
        problems=tuple(problem for each in foreseen.values() for problem in each.problems),
    )


def _newest_proven(context: Context) -> SetEntry:
    found = [entry for entry in context.sets.entries() if entry.state == "proven"]
    if not found:
        stack = context.stack.stack
        raise Refused("no set is proven, and a migration is tried on a copy of one first", next=f"storekeeper prove {stack}")
    return found[-1]


def _without_words(context: Context, action: str) -> Typed | None:
    command: MigrationCommand | None = getattr(context.stack.migration, action, None)
    return Typed(action, command, {}) if command is not None and not command.arguments else None


def _untouched(looked: _Looked) -> dict[str, Any]:
    """What the result says where nothing live was changed."""
    applied = looked.applied and looked.applied.to_json()
    return {"safety_set": None, "stores": {}, "downtime_s": 0.0, "applied": applied, "agreements": {}, "back": None}


def _live(context: Context, looked: _Looked, trial: Tried, facts: dict[str, Any]) -> Migrated:
    """The second half: what ran well on a copy, on what is live."""
    wanted = looked.wanted[0]
    common = {"set": None, "undoes": None, "stores": list(context.stores)}
    journal = begin(context, MIGRATION, None, looked.live, common)
    walk = Migrating(context, journal, Interruption())
    walk.save(lambda: _safety_set(context, looked.live))

    def refuse_another_end() -> None:
        found = applied_in(context, context.stores)
        if trial.after is not None and found != trial.after:
            said = f"on the copy it came to {trial.after.spoken}, live to {found.spoken if found else 'nothing'}"
            raise Failed(f"{wanted.spoken}: {said}")

    walk.carry_out(wanted.spoken, lambda: _run(context, wanted), refuse_another_end)
    applied = applied_in(context, context.stores)
    told = {
        "safety_set": journal.safety_set,
        "stores": {name: {"counts": each["counts"]} for name, each in walk.results().items()},
        "downtime_s": _downtime(journal),
        "applied": applied and applied.to_json(),
        "agreements": {},
        "back": f"storekeeper restore {context.stack.stack} --back",
    }
    return Migrated({**facts, **told}, looked.problems, is_changed=True)


def _run(context: Context, wanted: Typed) -> None:
    commands.carry_out(context, wanted.command, wanted.words)


def _safety_set(context: Context, live: Live) -> SetEntry:
    entry, _ = take_safety_set(context, MIGRATION, live, RestoreRequest())
    if entry is None:
        raise Refused("no store is there")
    return entry


def _downtime(journal: Journal) -> float:
    """How long the services were stopped; nothing where none ran."""
    stopped, started = journal.entry(Step.STOPPING), journal.entry(Step.STARTED)
    if stopped is None or started is None or not stopped.facts["running"]:
        return 0.0
    return round((started.at - stopped.at).total_seconds(), 3)
