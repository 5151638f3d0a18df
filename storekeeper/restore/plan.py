"""What a restore would do, found out without changing anything; every reason against it is said at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storekeeper.host import space
from storekeeper.host.space import FileSystem
from storekeeper.outcomes import Problem, Refused, Severity, StorekeeperError, Unknown
from storekeeper.restore.services import Stoppable
from storekeeper.sets.context import Context
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.repository import Resolved, SetEntry
from storekeeper.stack.model import covered_paths
from storekeeper.stores.protocol import Foresight, Store

MEND = "mend it, or move it aside: what is absent is restored without being saved first"
_ROOM = 1.2  # times the size of the newest set must be free for the safety set, as for every set


@dataclass(frozen=True)
class RestoreRequest:
    """What a person asked for: a set, or the way back; and what they allowed."""

    set: str | None = None
    back: bool = False
    only: tuple[str, ...] = ()
    plan: bool = False
    stage_dir: Path | None = None
    accept_unreadable: frozenset[str] = frozenset()


class _Gathered:
    """Several reasons against a restore, each a problem of its own (`problems`); nothing was changed."""

    reasons: Sequence[StorekeeperError] = ()

    def problems(self) -> list[Problem]:
        return [error.problem() for error in self.reasons]


class ManyRefused(_Gathered, Refused):
    """All of them are refusals."""


class ManyUnknown(_Gathered, Unknown):
    """At least one of them could not be found out."""


@dataclass(frozen=True)
class Plan:
    """A restore that nothing speaks against: the set, what each store foresees, what is stopped, and the room for all of it."""

    entry: SetEntry
    manifest: Manifest
    foreseen: Mapping[str, Foresight]
    absent: tuple[str, ...]  # of all stores, also those that are not restored: the safety set is without them
    stops: tuple[str, ...]
    file_systems: tuple[FileSystem, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        stores = {
            name: {
                "counts_now": None if each.counts_now is None else dict(each.counts_now),
                "counts_after": dict(each.counts_after),
                "bytes_needed": sum(each.bytes_needed.values()),
                "downtime_s": each.downtime_s,
            }
            for name, each in self.foreseen.items()
        }
        return {"set": self.entry.id, "stores": stores, "services": list(self.stops), "space": told_space(self.file_systems)}


def make_plan(context: Context, request: RestoreRequest, resolved: Resolved) -> Plan:
    """Look at everything a restore of this set needs. Raises every reason against it; changes nothing."""
    entry = resolved.entry
    manifest = entry.manifest
    if manifest is None:
        raise Refused(f"set {entry.id} is {entry.state}: {entry.reason}", next=f"storekeeper list {context.stack.stack}")
    if request.stage_dir is not None:
        refuse_unfit_stage_dir(context, request.stage_dir)
    chosen = choose(context, manifest, request.only)
    absent = look_for_unreadable(context, request.accept_unreadable)
    foreseen = foresee_all(chosen, entry, manifest, request.stage_dir)
    needs = add_up([safety_need(context, absent), *(each.bytes_needed for each in foreseen.values())])
    return Plan(
        entry=entry,
        manifest=manifest,
        foreseen=foreseen,
        absent=absent,
        stops=tuple(Stoppable.of(context, chosen).running()),
        file_systems=tuple(space.check(needs, purpose="restore", next=_elsewhere(context, request))),
        problems=tuple(_notes(context, request, resolved, absent, foreseen)),
    )


def choose(context: Context, manifest: Manifest, only: Sequence[str]) -> dict[str, Store]:
    """The stores to restore, in the order of the stack file. Raises Refused where set and stack do not name the same."""
    declared, held = context.stores.keys(), manifest.stores.keys()
    for name in only:
        if name not in declared:
            raise Refused(f"the stack declares no store {name}: {', '.join(declared)}")
        if name not in held:
            raise Refused(f"set {manifest.id} holds no store {name}: {', '.join(held)}", store=name)
    if not only and declared != held:
        raise Refused(_differ(declared, held, manifest.id), next=_only_common(context, manifest))
    chosen = {name: store for name, store in context.stores.items() if not only or name in only}
    for name, store in chosen.items():
        if store.kind != manifest.stores[name].kind:
            raise Refused(
                f"it is declared as {store.kind}, set {manifest.id} holds a {manifest.stores[name].kind} store of that name", store=name
            )
    return chosen


def look_for_unreadable(context: Context, accepted: frozenset[str]) -> tuple[str, ...]:
    """The stores that are absent, of which nothing can be saved. Raises where one is there and cannot be read.

    That is refused also where a person accepts it (`accepted`): a raw copy is not known to this version.
    """
    strange = sorted(accepted - context.stores.keys())
    if strange:
        raise Refused(f"the stack declares no store {strange[0]}: {', '.join(context.stores)}")
    if accepted:
        raise Refused("a raw copy of a store that cannot be read is not made by this version", store=min(accepted), next=MEND)
    absent: list[str] = []
    errors: list[StorekeeperError] = []
    for name, store in context.stores.items():
        context.progress.step(name, "looking")
        try:
            if store.is_absent():
                absent.append(name)
            else:
                store.inspect()
        except StorekeeperError as error:
            errors.append(_unreadable(error, name))
    raise_all(errors)
    return tuple(absent)


def foresee_all(chosen: Mapping[str, Store], entry: SetEntry, manifest: Manifest, stage_dir: Path | None) -> dict[str, Foresight]:
    """Ask every store, and raise what all of them say against it together."""
    found: dict[str, Foresight] = {}
    errors: list[StorekeeperError] = []
    for name, store in chosen.items():
        try:
            found[name] = store.foresee(entry.path / name, manifest.stores[name], stage_dir)
        except StorekeeperError as error:
            errors.append(error.about(name))
    raise_all(errors)
    return found


def safety_need(context: Context, absent: Iterable[str]) -> dict[Path, int]:
    """What the safety set will take, judged as every set is: by the newest good one, else by what the stores hold."""
    newest = context.sets.newest_usable()
    present = [store for name, store in context.stores.items() if name not in set(absent)]
    if not present:
        return {}
    held = newest.bytes if newest is not None else sum(store.look().bytes for store in present)
    return {context.sets.path: int(held * _ROOM)}


def add_up(needs: Iterable[Mapping[Path, int]]) -> dict[Path, int]:
    total: dict[Path, int] = {}
    for each in needs:
        for path, count in each.items():
            total[path] = total.get(path, 0) + count
    return total


def told_space(file_systems: Iterable[FileSystem]) -> dict[str, dict[str, int]]:
    return {str(each.mount): {"needed": each.needed, "free": each.free} for each in file_systems}


def refuse_unfit_stage_dir(context: Context, stage_dir: Path) -> None:
    """Raises Refused unless it is a directory of ours that nobody else can write, and outside of everything a store covers."""
    try:
        status = os.lstat(stage_dir)
    except OSError as error:
        raise Refused(f"{stage_dir} cannot be staged in: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise Refused(f"{stage_dir} is no directory")
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(f"{stage_dir} can be written by others: staged data must not be", next=f"install -d -m 0700 {stage_dir}/staged")
    resolved = stage_dir.resolve()
    for name, declared in context.stack.stores.items():
        for path in covered_paths(declared):
            if resolved == path.resolve() or path.resolve() in resolved.parents:
                raise Refused(f"{stage_dir} is inside of what is restored: {path}", store=name)


def raise_all(errors: Sequence[StorekeeperError]) -> None:
    """Raise one error as it is, and several together; none is fine."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        kind = ManyRefused if all(isinstance(error, Refused) for error in errors) else ManyUnknown
        gathered = kind("; ".join(error.message for error in errors))
        gathered.reasons = tuple(errors)
        raise gathered


def _unreadable(error: StorekeeperError, name: str) -> StorekeeperError:
    said = f"it is there and cannot be read, so it cannot be saved first: {error.message}"
    kind = Unknown if isinstance(error, Unknown) else Refused
    return kind(said, store=name, next=error.next or MEND)


def _differ(declared: Iterable[str], held: Iterable[str], set_id: str) -> str:
    missing, strange = sorted(set(declared) - set(held)), sorted(set(held) - set(declared))
    parts = [f"set {set_id} does not hold {', '.join(missing)}"] if missing else []
    parts += [f"the stack file does not declare {', '.join(strange)}, which set {set_id} holds"] if strange else []
    return " and ".join(parts)


def _only_common(context: Context, manifest: Manifest) -> str:
    common = [name for name in context.stores if name in manifest.stores]
    words = " ".join(f"--only {name}" for name in common)
    return f"storekeeper restore {context.stack.stack} {manifest.id} {words}" if common else f"storekeeper list {context.stack.stack}"


def _elsewhere(context: Context, request: RestoreRequest) -> str:
    which = "--back" if request.back else request.set
    return f"free space, or stage elsewhere: storekeeper restore {context.stack.stack} {which} --stage-dir DIRECTORY"


def _notes(
    context: Context, request: RestoreRequest, resolved: Resolved, absent: Iterable[str], foreseen: Mapping[str, Foresight]
) -> list[Problem]:
    """What a person should know before saying yes."""
    notes = [
        Problem(
            f"{each.id} is newer and was passed over: it is {each.state}" + (f", {each.reason}" if each.reason else ""), Severity.WARNING
        )
        for each in resolved.skipped
    ]
    manifest = resolved.entry.manifest
    if manifest is not None and manifest.host != context.host:
        notes.append(Problem(f"set {manifest.id} was taken on {manifest.host}, this is {context.host}", Severity.INFO))
    notes += [Problem("it is absent: nothing of it can be saved first", Severity.INFO, name) for name in absent]
    if request.only:
        notes.append(Problem(f"only {', '.join(request.only)} will be restored: the other stores keep what they hold now", Severity.INFO))
    for name, each in foreseen.items():
        notes += [problem if problem.store else replace(problem, store=name) for problem in each.problems]
    return notes
