"""Removing the sets that retention keeps no longer: moved to `.trash/` in one step first, so that a set is whole or gone.

Nothing is touched that this program did not make: a set with a file in it that its manifest does not know is left alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from storekeeper.host import durable, locks
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Busy, Failed, Problem, Refused, Severity, said_by_the_system
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.manifest import MANIFEST, BadManifest
from storekeeper.sets.names import read_id
from storekeeper.sets.repository import SetEntry, SetGone, StackSets
from storekeeper.sets.retention import Decisions, decide
from storekeeper.sets.strangers import stranger
from storekeeper.sets.verification import verify_set
from storekeeper.stack.model import Keep

_LOOKS = 5


@dataclass(frozen=True)
class Pruned:
    """What was kept and why, what was removed and why, and the bytes that no set holds any more."""

    kept: tuple[tuple[str, tuple[str, ...]], ...]
    removed: tuple[tuple[str, str], ...]
    bytes_freed: int
    problems: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "kept": [{"id": set_id, "reasons": list(reasons)} for set_id, reasons in self.kept],
            "removed": [{"id": set_id, "reason": reason} for set_id, reason in self.removed],
            "bytes_freed": self.bytes_freed,
        }


class MostWouldGo(Refused):
    """More than half of the sets would go, and nobody said that this is meant. `plan` is what would have been done."""

    def __init__(self, stack: str, plan: Pruned) -> None:
        count, all_of_them = len(plan.removed), len(plan.removed) + len(plan.kept)
        message = f"{count} of {all_of_them} sets of {stack} would go, more than half: nothing was removed. Is the policy meant so?"
        super().__init__(message, next=f"storekeeper prune {stack} --yes")
        self.plan = plan


def prune(
    sets: StackSets,
    keep: Keep,
    now: datetime,
    *,
    dry_run: bool = False,
    confirmed: bool = False,
    newest_run_failed: bool = False,
    progress: Progress | None = None,
) -> Pruned:
    """Remove what `keep` keeps no longer. With `dry_run` the same answer, and nothing is changed.

    The newest set that will be left is read back in full first: raises Refused when it is bad, and nothing was removed.
    Raises MostWouldGo when more than half of the sets would go, unless a person `confirmed` it: that is what a mistake in
    the policy looks like. A dry run holds no lock: where another run removes what it looks at, it looks again, and raises Busy in the end.
    """
    gone = ""
    for _ in range(_LOOKS if dry_run else 1):
        try:
            return _prune(sets, keep, now, dry_run=dry_run, confirmed=confirmed, newest_run_failed=newest_run_failed, progress=progress)
        except (FileNotFoundError, SetGone) as error:
            if not dry_run:
                raise
            gone = error.message if isinstance(error, SetGone) else said_by_the_system(error)
    said = f"sets of {sets.stack} went away each of {_LOOKS} times that they were looked at: {gone}"
    raise Busy(said, next=f"storekeeper prune {sets.stack} --dry-run")


def _prune(
    sets: StackSets,
    keep: Keep,
    now: datetime,
    *,
    dry_run: bool,
    confirmed: bool,
    newest_run_failed: bool,
    progress: Progress | None,
) -> Pruned:
    entries = {entry.id: entry for entry in sets.entries()}
    choice = _choose(entries, keep, now, newest_run_failed=newest_run_failed)
    doomed = [entries[set_id] for set_id, _ in choice.removed]
    if doomed:
        survivor = _newest_survivor(entries, choice)
        _refuse_bad_survivor(sets, survivor, progress or Progress(), dry_run=dry_run)
    leftovers = sets.in_trash()
    needs_a_word = not confirmed and _needs_a_word(len(doomed), len(entries))
    if dry_run or needs_a_word:
        folders = [sets.trash / name for name in leftovers] + [entry.path for entry in doomed]
        plan = Pruned(choice.kept, choice.removed, _bytes_freed(folders), (*choice.warnings, *_told(leftovers)))
        if needs_a_word and not dry_run:
            raise MostWouldGo(sets.stack, plan)
        return replace(plan, problems=(*plan.problems, _asks_first(sets.stack))) if needs_a_word else plan
    busy = [entry.id for entry in doomed if not _move_to_trash(sets, entry)]
    if busy:
        choice = _spare(choice, dict.fromkeys(busy, "in use"), ())
    freed = _empty_trash(sets)
    _forget_the_removed(sets)
    return Pruned(choice.kept, choice.removed, freed, (*choice.warnings, *_told(leftovers)))


def _choose(entries: dict[str, SetEntry], keep: Keep, now: datetime, *, newest_run_failed: bool) -> Decisions:
    """What retention decides, less what is in use and what holds something that is not ours."""
    choice = decide(list(entries.values()), keep, now, newest_run_failed=newest_run_failed)
    in_use = [set_id for set_id, _ in choice.removed if not _is_free(entries[set_id].path)]
    choice = decide(list(entries.values()), keep, now, newest_run_failed=newest_run_failed, in_use=in_use)
    foreign = {set_id: name for set_id, _ in choice.removed if (name := _stranger_in(entries[set_id])) is not None}
    reasons = {set_id: f"holds {ascii(name)[1:-1]}, which is not ours" for set_id, name in foreign.items()}
    return _spare(choice, reasons, [f"set {set_id} {why}: it is left alone" for set_id, why in reasons.items()])


def _spare(choice: Decisions, reasons: dict[str, str], warnings: Sequence[str]) -> Decisions:
    """The same decisions, but with some sets kept for a reason that only looking at the disk could give."""
    kept = [*choice.kept, *((set_id, (reasons[set_id],)) for set_id, _ in choice.removed if set_id in reasons)]
    return Decisions(
        tuple(sorted(kept, key=lambda each: _sequence(each[0]))),
        tuple(each for each in choice.removed if each[0] not in reasons),
        (*choice.warnings, *(Problem(text, Severity.WARNING) for text in warnings)),
    )


def _newest_survivor(entries: dict[str, SetEntry], choice: Decisions) -> SetEntry:
    for set_id, _ in reversed(choice.kept):
        if entries[set_id].usable:
            return entries[set_id]
    raise Refused("no usable set would be left; nothing was removed")


def _refuse_bad_survivor(sets: StackSets, survivor: SetEntry, progress: Progress, *, dry_run: bool) -> None:
    """Read back the set that will be relied on when the others are gone. A bad one is written down as damaged."""
    with sets.using(survivor):
        try:
            manifest = survivor.manifest
            faults = check_artefacts(survivor.path, manifest, progress) if manifest else []
            found = faults[0].message if faults else survivor.reason if manifest is None else None
        except BadManifest as error:
            found = error.message
    if found is None:
        return
    if not dry_run:
        verify_set(sets, survivor, {}, progress)
    raise Refused(
        f"the newest usable set {survivor.id} of {sets.stack} is damaged: {found}; nothing was removed",
        next=f"storekeeper verify {sets.stack} --all",
    )


def _move_to_trash(sets: StackSets, entry: SetEntry) -> bool:
    """Take a set's name away in one durable step; False when somebody is using it. Raises Refused where one step does not lead there."""
    with locks.hold_directory(entry.path) as free:
        if free:
            durable.ensure_directory(sets.trash)
            try:
                durable.rename(entry.path, sets.trash / entry.id)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                message = (
                    f"{sets.trash} is another mount than its sets, so set {entry.id} cannot be removed in one step: it was left as it is"
                )
                raise Refused(message, next=f"umount {sets.trash}") from error
        return free


def _empty_trash(sets: StackSets) -> int:
    """Remove the sets in the trash, also those that a killed run left there; returns the bytes that this frees."""
    folders = [sets.trash / name for name in sets.in_trash()]
    freed = _bytes_freed(folders)
    for folder in folders:
        try:
            durable.remove_tree(folder)
        except OSError as error:
            raise Failed(f"{folder} could not be removed: {error.strerror}; its set is gone, its space is not") from error
    return freed


def _forget_the_removed(sets: StackSets) -> None:
    """Remove the records of sets that are gone."""
    there = {entry.id for entry in sets.entries()} | set(sets.in_trash())
    for name in list(sets.records.sets()):
        if read_id(name) is not None and name not in there:
            sets.records.remove(name)


def _stranger_in(entry: SetEntry) -> str | None:
    manifest = entry.manifest if entry.readable else None
    if manifest is not None:
        return stranger(entry.path, manifest)
    # Without its manifest the stores' names are not known, but a set's directory holds no other files.
    with os.scandir(entry.path) as found:
        return next((each.name for each in found if each.name != MANIFEST and not each.is_dir(follow_symlinks=False)), None)


def _is_free(path: Path) -> bool:
    with locks.hold_directory(path) as free:
        return free


def _bytes_freed(folders: Sequence[Path]) -> int:
    """What the removal of these sets frees: a shared file only counts when all its links are among them."""
    return sum(
        status.st_size
        for index, folder in enumerate(folders)
        for name, status in _files(folder)
        if status.st_nlink == 1 or _all_links_go(folders, index, name, status)
    )


def _all_links_go(folders: Sequence[Path], index: int, name: Path, status: os.stat_result) -> bool:
    """Whether this is the first of a file's links and all others go too. Shared files have the same place in their sets."""
    places = [number for number, folder in enumerate(folders) if _is_same(folder / name, status)]
    return len(places) == status.st_nlink and places[0] == index


def _is_same(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), status)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every regular file below a folder, by its relative path; directories are read as they come."""
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(Path(entry.path))
                elif stat.S_ISREG(status.st_mode):
                    yield Path(entry.path).relative_to(folder), status


def _needs_a_word(doomed: int, all_of_them: int) -> bool:
    """Whether so many would go that somebody must have meant it."""
    return 2 * doomed > all_of_them


def _asks_first(stack: str) -> Problem:
    return Problem(
        "this is more than half of the sets: without --yes nothing is removed", Severity.INFO, next=f"storekeeper prune {stack} --yes"
    )


def _told(leftovers: Collection[str]) -> tuple[Problem, ...]:
    if not leftovers:
        return ()
    return (Problem(f"{len(leftovers)} sets that a killed run had left in the trash go too", Severity.INFO),)


def _sequence(set_id: str) -> int:
    parsed = read_id(set_id)
    return parsed.sequence if parsed else 0
