"""What a restore would do, found out without changing anything; every reason against it is said at once."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from storekeeper.host import space
from storekeeper.host.space import FileSystem
from storekeeper.outcomes import Problem, Refused, Severity, StorekeeperError, Unknown
from storekeeper.restore import disagreement
from storekeeper.restore.disagreement import Disagreement
from storekeeper.restore.partial import left_behind
from storekeeper.restore.services import Stoppable
from storekeeper.sets import room
from storekeeper.sets.context import Context
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.repository import Resolved, SetEntry
from storekeeper.stack.model import covered_paths
from storekeeper.stores.protocol import Foresight, Store
from storekeeper.stores.record import StoreRecord


@dataclass(frozen=True)
class RestoreRequest:
    """What a person asked for: a set, or the way back; and what they allowed. A plan that `asks` is shown to be answered with a yes."""

    set: str | None = None
    back: bool = False
    only: tuple[str, ...] = ()
    plan: bool = False
    asks: bool = False
    stage_dir: Path | None = None
    accept_unreadable: frozenset[str] = frozenset()
    allow_disagreement: bool = False
    reset: bool = False

    @property
    def verb(self) -> str:
        return "reset" if self.reset else "restore"


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
class Live:
    """How all stores were found, also those that are not restored. What is not named here can be read, and is saved as every set is."""

    absent: tuple[str, ...] = ()  # there is nothing to save
    raw: Mapping[str, str] = field(default_factory=dict)  # cannot be read, for this reason; a person accepts a raw copy
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # of those that can be read

    def word(self, store: str) -> str:
        """The contract's word: `absent`, `unreadable` or `readable`."""
        return "absent" if store in self.absent else "unreadable" if store in self.raw else "readable"


@dataclass(frozen=True)
class Plan:
    """A restore that nothing speaks against: the set, what each store foresees, what is stopped, and the room for all of it."""

    entry: SetEntry
    manifest: Manifest
    foreseen: Mapping[str, Foresight]
    live: Live
    stops: tuple[str, ...]
    file_systems: tuple[FileSystem, ...]
    problems: tuple[Problem, ...]
    disagreements: tuple[Disagreement, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "set": self.entry.id,
            "stores": told_stores(self.live, self.foreseen),
            "services": list(self.stops),
            "space": told_space(self.file_systems),
            "disagreements": disagreement.told(self.disagreements),
        }


def make_plan(context: Context, request: RestoreRequest, resolved: Resolved) -> Plan:
    """Look at everything a restore of this set needs. Raises every reason against it; changes nothing."""
    entry = resolved.entry
    manifest = entry.manifest
    if manifest is None:
        raise Refused(f"set {entry.id} is {entry.state}: {entry.reason}", next=f"storekeeper list {context.stack.stack}")
    if request.stage_dir is not None:
        refuse_unfit_stage_dir(context, request.stage_dir)
    chosen = choose(context, manifest, request.only)
    live = look_at_live(context, request)
    foreseen = foresee_all(chosen, entry.path, manifest.stores, live, request.stage_dir)
    needs = add_up([safety_need(context, live), *(each.bytes_needed for each in foreseen.values())])
    disagreements = disagreement.disagreements(context, entry, chosen) if request.only and not request.back else ()
    return Plan(
        entry=entry,
        manifest=manifest,
        foreseen=foreseen,
        live=live,
        stops=tuple(Stoppable.of(context, chosen).running()),
        file_systems=tuple(space.check(needs, purpose="restore", next=_elsewhere(context, request))),
        problems=(
            *_notes(context, resolved, live, foreseen),
            *disagreement.problems_of(disagreements, chosen, allowing(context, request)),
        ),
        disagreements=disagreements,
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


def look_at_live(context: Context, request: RestoreRequest) -> Live:
    """Which stores are absent, and which are there and cannot be read, so that only a raw copy can be kept of them first.

    Raises for each of the latter that the request does not accept, with the command that does, and for each that has no raw copy.
    """
    strange = sorted(request.accept_unreadable - context.stores.keys())
    if strange:
        raise Refused(f"the stack declares no store {strange[0]}: {', '.join(context.stores)}")
    absent: list[str] = []
    unread: dict[str, StorekeeperError] = {}
    counts: dict[str, Mapping[str, int]] = {}
    for name, store in context.stores.items():
        context.progress.step(name, "looking")
        try:
            if store.is_absent():
                absent.append(name)
            else:
                counts[name] = store.inspect().counts
        except StorekeeperError as error:
            unread[name] = error
    _refuse_unaccepted(context, request, unread)
    return Live(tuple(absent), {name: error.message for name, error in unread.items()}, counts)


def unsaved(context: Context, request: RestoreRequest, error: StorekeeperError) -> StorekeeperError:
    """What to say when a store could not be saved although it seemed that it could be read; an error about no store stays as it is."""
    if error.store is None:
        return error
    command = accepting(context, request, {error.store})
    return Refused(f"it cannot be saved first: {error.message}", store=error.store, next=error.next or command)


def accepting(context: Context, request: RestoreRequest, stores: Collection[str]) -> str:
    """The command that accepts raw copies of these stores too."""
    return _command(context, replace(request, accept_unreadable=request.accept_unreadable | frozenset(stores)))


def allowing(context: Context, request: RestoreRequest) -> str:
    """The command that accepts that stores disagree afterwards."""
    return _command(context, replace(request, allow_disagreement=True))


def _command(context: Context, request: RestoreRequest) -> str:
    words = ["storekeeper", request.verb, context.stack.stack]
    words += [] if request.reset else ["--back" if request.back else str(request.set)]
    words += [word for name in request.only for word in ("--only", name)]
    words += ["--stage-dir", shlex.quote(str(request.stage_dir))] if request.stage_dir is not None else []
    words += [word for name in sorted(request.accept_unreadable) for word in ("--accept-unreadable", name)]
    words += ["--allow-disagreement"] if request.allow_disagreement else []
    return " ".join(words)


def foresee_all(
    stores: Mapping[str, Store], folder: Path, records: Mapping[str, StoreRecord], live: Live, stage_dir: Path | None = None
) -> dict[str, Foresight]:
    """Ask every store what it would be to switch to its part of what is in a folder, and raise what all say against it together."""
    found: dict[str, Foresight] = {}
    errors: list[StorekeeperError] = []
    for name, store in stores.items():
        try:
            found[name] = store.foresee(folder / name, records[name], stage_dir, raw=name in live.raw)
        except StorekeeperError as error:
            errors.append(error.about(name))
    raise_all(errors)
    return found


def safety_need(context: Context, live: Live) -> dict[Path, int]:
    """What the safety set will take, judged as every set is; raw copies beside."""
    present = {name: store for name, store in context.stores.items() if live.word(name) == "readable"}
    if not present and not live.raw:
        return {}
    return {context.sets.path: room.of_the_next(context.sets, present) + sum(context.stores[name].raw_bytes() for name in live.raw)}


def add_up(needs: Iterable[Mapping[Path, int]]) -> dict[Path, int]:
    total: dict[Path, int] = {}
    for each in needs:
        for path, count in each.items():
            total[path] = total.get(path, 0) + count
    return total


def told_stores(live: Live, foreseen: Mapping[str, Foresight]) -> dict[str, Any]:
    """What the contract says of each store in a plan."""
    return {
        name: {
            "now": live.word(name),
            "counts_now": None if each.counts_now is None else dict(each.counts_now),
            "counts_after": dict(each.counts_after),
            "bytes_needed": sum(each.bytes_needed.values()),
            "downtime_s": each.downtime_s,
        }
        for name, each in foreseen.items()
    }


def told_space(file_systems: Iterable[FileSystem]) -> dict[str, dict[str, int]]:
    return {str(each.mount): {"needed": each.needed, "free": each.free} for each in file_systems}


def raw_notes(live: Live) -> list[Problem]:
    """What a person has accepted, said once more."""
    said = "it cannot be read, only its files are kept as they are"
    return [Problem(f"{said}: {why}", Severity.WARNING, name) for name, why in live.raw.items()]


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


def _refuse_unaccepted(context: Context, request: RestoreRequest, unread: Mapping[str, StorekeeperError]) -> None:
    """Raises for what a person has not accepted, and for what has no raw copy whatever a person accepts."""
    without_copy = {name: error for name in unread if (error := _no_raw_copy(context.stores[name])) is not None}
    command = accepting(context, request, unread.keys() - without_copy.keys())
    errors: list[StorekeeperError] = []
    for name, error in unread.items():
        if name not in request.accept_unreadable:
            said = f"it is there and cannot be read, so it cannot be saved first: {error.message}"
            kind = Unknown if isinstance(error, Unknown) else Refused
            errors.append(kind(said, store=name, next=error.next or without_copy.get(name, error).next or command))
        elif name in without_copy:
            errors.append(without_copy[name].about(name))
    raise_all(errors)


def _no_raw_copy(store: Store) -> StorekeeperError | None:
    try:
        store.raw_bytes()
    except StorekeeperError as error:
        return error
    return None


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


def _notes(context: Context, resolved: Resolved, live: Live, foreseen: Mapping[str, Foresight]) -> list[Problem]:
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
    notes += [Problem("it is absent: nothing of it can be saved first", Severity.INFO, name) for name in live.absent]
    notes += raw_notes(live)
    if manifest is not None:
        notes += left_behind(manifest, foreseen, {name: live.counts.get(name) for name in context.stores if name not in foreseen})
    for name, each in foreseen.items():
        notes += [problem if problem.store else replace(problem, store=name) for problem in each.problems]
    return notes
