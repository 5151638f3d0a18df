"""Making what is staged live and back again, for all covered entries of one directory.

    state.json   {"direction", "goal", "done", "made"}
        direction in: `new` comes in and what was live goes to `old`; direction back: the reverse
        goal there, or undo: whether that is being done or undone

Before anything moves, plan.jsonl says for each name which inodes stand where; every step is then found out from disk, so that
either direction can be taken up, or turned round, after a crash at any point.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from heapq import merge
from pathlib import Path
from typing import Any

from storekeeper.host import durable
from storekeeper.host.tree import joined, opened, parents_of, remove
from storekeeper.outcomes import Failed
from storekeeper.stores.exchange import Inodes, Sides, bring_in, inode_of, take_back
from storekeeper.stores.files.attributes import apply, copy_directory
from storekeeper.stores.files.carrying import carry, excluded_below
from storekeeper.stores.files.entries import Entry
from storekeeper.stores.files.listing import shown
from storekeeper.stores.files.places import Place
from storekeeper.stores.files.rights import Rights
from storekeeper.stores.files.scope import Scope, order_of
from storekeeper.stores.protocol import SwitchLog

IN, BACK = "in", "back"
THERE, UNDO = "there", "undo"
_OPEN_DIRECTORY = 0o755

State = dict[str, Any]


def aims_at_new(state: Mapping[str, Any]) -> bool:
    """Which side the last call wanted live."""
    return bool((state["direction"] == IN) == (state["goal"] == THERE))


class Switching:
    """The covered entries of one directory, in one restore."""

    def __init__(self, place: Place, scope: Scope, rights: Rights, log: SwitchLog) -> None:
        self._place = place
        self._scope = scope
        self._rights = rights
        self._log = log

    def switch(self) -> None:
        """Make the staged entries live. Raises Failed."""
        if not self._place.exists():
            raise Failed(f"what was staged is gone: {self._place.hidden}")
        self._want(new=True)

    def switch_back(self) -> None:
        """Make what was live before live again; nothing to do before the first switch, and when all of it is removed."""
        if self._place.exists() and self._place.state is not None:
            self._want(new=False)

    def _want(self, *, new: bool) -> None:
        state = self._place.state
        if state is not None and state["done"]:
            if aims_at_new(state) == new:
                return
            state = None
        if state is None:
            state = self._begin(IN if new else BACK)
        elif aims_at_new(state) != new:
            state = self._keep({**state, "goal": UNDO if state["goal"] == THERE else THERE})
        self._run(state)

    def _begin(self, direction: str) -> State:
        self._place.write_plan(self._moves(direction))
        made = (self._place.state or {}).get("made", [])
        return self._keep({"direction": direction, "goal": THERE, "done": False, "made": made})

    def _keep(self, state: State) -> State:
        """The journal is told what the place itself remembers."""
        self._log.note(f"files:{self._place.parent}", **{key: state[key] for key in ("direction", "goal", "done")})
        self._place.set_state(state)
        return state

    def _run(self, state: State) -> None:
        step = bring_in if state["goal"] == THERE else take_back
        for folder in (self._place.new, self._place.old):
            durable.ensure_directory(folder)
        if aims_at_new(state):
            state = self._make_way(state)
        for name, incoming, live in self._place.plan():
            sides = self._sides(name, state["direction"])
            try:
                step(sides, Inodes(incoming, live), partial(carry, self._scope, joined(self._place.parent, name)))
            except OSError as error:
                raise Failed(f"{shown(name)} could not be switched: {error.strerror}") from error
        if not aims_at_new(state):
            self._remove_way(state)
        for folder in (self._place.live, self._place.new, self._place.old):
            if folder.is_dir():
                durable.sync_directory(folder)
        self._keep({**state, "done": True})

    def _sides(self, name: str, direction: str) -> Sides:
        new, old = self._place.new / name, self._place.old / name
        incoming, outgoing = (new, old) if direction == IN else (old, new)
        return Sides(self._place.live / name, incoming, outgoing)

    def _moves(self, direction: str) -> Iterator[tuple[str, int | None, int | None]]:
        """In order, and each name is held once, as bytes: a root may have very many."""
        coming = sorted(os.listdir(os.fsencode(self._place.new if direction == IN else self._place.old)))
        going = sorted(order_of(name) for name in self._live_names() if inode_of(self._sides(name, direction).incoming) is None)
        for name in map(os.fsdecode, merge(coming, going)):
            sides = self._sides(name, direction)
            if inode_of(sides.incoming) is None:
                self._keep_excluded(name, sides)
            yield name, inode_of(sides.incoming), inode_of(sides.live)

    def _live_names(self) -> Iterator[str]:
        """The covered entries that are live now."""
        if not self._place.live.is_dir():
            return
        with os.scandir(self._place.live) as entries:
            for entry in entries:
                path = joined(self._place.parent, entry.name)
                if not self._scope.leaves_out(path) and (not self._scope.include or path in self._scope.include):
                    yield entry.name

    def _keep_excluded(self, name: str, sides: Sides) -> None:
        """What goes out without a replacement leaves an empty directory behind for the excluded entries in it, if there are any."""
        if not self._scope.exclude or not sides.live.is_dir() or sides.live.is_symlink():
            return
        path = joined(self._place.parent, name)
        with opened({self._place.parent: sides.live.parent}) as tree, opened({"": sides.incoming.parent}) as incoming:
            if next(excluded_below(tree, self._scope, path), None) is not None:
                copy_directory(tree.directory(path), name, incoming.directory(""))

    def _make_way(self, state: State) -> State:
        """Make the directory that the entries belong in, and those above it, where they are missing."""
        missing = self._missing()
        if not missing:
            return state
        made = dict.fromkeys([*state["made"], *(str(path) for path, _ in missing)])
        state = self._keep({**state, "made": list(made)})
        for path, recorded in reversed(missing):
            durable.make_directory(path, _OPEN_DIRECTORY)
            if recorded is not None:
                self._apply(path, recorded)
        return state

    def _missing(self) -> list[tuple[Path, Entry | None]]:
        """Innermost first, with what the set says of those that belong to the store."""
        above: dict[str, Entry] = self._place.restore["above"]
        missing: list[tuple[Path, Entry | None]] = []
        path, inner = self._place.live, [self._place.parent, *parents_of(self._place.parent)]
        inner = [*inner, ""] if self._place.parent else inner
        while not os.path.lexists(path):
            missing.append((path, above.get(inner.pop(0)) if inner else None))
            path = path.parent
        return missing

    def _apply(self, path: Path, recorded: Entry) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            apply(recorded, descriptor, self._rights)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remove_way(self, state: State) -> None:
        """Remove the directories that were made, unless something else has come into them."""
        for each in state["made"]:
            path = Path(each)
            if path.is_dir() and not os.listdir(path):
                path.rmdir()
                durable.sync_directory(path.parent)


def discard_stage(place: Place) -> None:
    """Remove what is staged and not live; raises Failed in the middle of a switch. The old side stays."""
    state = place.state if place.exists() else None
    if state is None:
        place.remove()
        return
    _refuse_unfinished(place, state)
    if aims_at_new(state):
        remove(place.new)
    else:
        place.remove()


def discard_old(place: Place) -> None:
    """Remove the old side, and with it the way back; raises Failed in the middle of a switch. What is staged stays."""
    state = place.state if place.exists() else None
    if state is not None:
        _refuse_unfinished(place, state)
    if state is None and place.exists():
        return
    if state is None or aims_at_new(state):
        place.remove()


def _refuse_unfinished(place: Place, state: Mapping[str, Any]) -> None:
    if not state["done"]:
        raise Failed(f"the switch of {place.live} is not finished: nothing of it can be removed")


def check_live(place: Place) -> None:
    """Raises Failed where nothing of what was switched in is live: its directory is gone, or none of its entries is there."""
    if not place.live.is_dir():
        raise Failed(f"{place.live} is no directory")
    expected = [name for name, incoming, _ in place.plan() if incoming is not None] if place.state is not None else []
    if expected and not any(inode_of(place.live / name) is not None for name in expected):
        raise Failed(f"none of the {len(expected):,} restored entries is in {place.live}")
