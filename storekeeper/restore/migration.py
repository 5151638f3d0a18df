"""The walk of a migration: services stopped, a safety set, the application's command on the live stores, a probe, services started.

Nothing is staged and nothing is switched unless it fails: then every store is restored from the safety set, by the steps of a restore.
What went on up to a crash stands in the journal, line by line, and `resume` starts the services again, ends it well, or goes back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from storekeeper.outcomes import Failed, StorekeeperError, naming
from storekeeper.restore.journal import Step
from storekeeper.restore.reserve import Reserve
from storekeeper.restore.walk import ABANDONED, DONE, WENT_BACK, Walk, said
from storekeeper.sets.repository import SetEntry
from storekeeper.stack.model import covered_paths
from storekeeper.stores.protocol import SwitchRoom

_ROOM = "room for the way back"


class Migrating(Walk):
    """The journal's stores are all of the stack: they go back together."""

    def save(self, take: Callable[[], SetEntry]) -> SetEntry:
        """Stop the services and take the safety set, so that it holds all that anybody wrote. Raises Failed with the services started."""
        try:
            with self._interruption.later():
                self._journal.write(Step.STOPPING, running=self._stoppable.running())
                self._context.progress.step(None, "stopping services")
                self._stoppable.stop_services()
                self._interruption.check()
            entry = take()
            self._journal.write(Step.SAVED, safety_set=entry.id, sequence=entry.sequence)
            self._refuse_without_way_back(entry)
        except BaseException as error:
            raise self.undo(error) from error
        return entry

    def carry_out(self, spoken: str, run: Callable[[], None], refuse: Callable[[], None]) -> None:
        """Run the command, see that every store answers and that `refuse` finds nothing wrong, and start the services. A failure goes
        back by itself, and is raised as Failed that says where things stand now.
        """
        try:
            with self._interruption.later():
                self._context.progress.step(None, f"running {spoken}")
                self._journal.write(Step.COMMAND, number=0, ended=False, spoken=spoken)
                run()
                self._interruption.check()
                self._count_again()
                refuse()
                self._journal.write(Step.COMMAND, number=0, ended=True, spoken=spoken)
                self._end()
        except BaseException as error:
            raise self.undo(error) from error

    def undo(self, cause: BaseException) -> Failed:
        """Return to the safety set, as far as anything can have been changed; the error to raise says how that went."""
        why = said(cause)
        store = cause.store if isinstance(cause, StorekeeperError) else None
        following = cause.next if isinstance(cause, StorekeeperError) else None
        try:
            with self._interruption.later():
                after = self._take_back(why) if self._journal.noted(Step.COMMAND) else self._abandon(why)
        except (StorekeeperError, OSError) as second:
            stuck = f"{why}; the way back failed too: {said(second)}. What was stopped stays stopped until it is resumed"
            return Failed(stuck, store=store, next=f"storekeeper resume {self._context.stack.stack}")
        return Failed(f"{why}; {after}", store=store, next=following)

    def resume(self) -> str:
        """End what was interrupted: returns DONE, WENT_BACK or ABANDONED. A command that was cut off is not begun again, and nobody knows
        how far it came: the stores go back. Raises Failed while it is stuck.
        """
        self._refuse_undeclared()
        with self._interruption.later():
            begun = self._journal.noted(Step.COMMAND)
            if begun is None:
                self._abandon("it was interrupted")
                return ABANDONED
            if begun["ended"] and self._journal.noted(Step.GOING_BACK) is None:
                try:
                    self._end()
                except BaseException as error:
                    raise self.undo(error) from error
                return DONE
            self._take_back("it was interrupted")
            return WENT_BACK

    def _end(self) -> None:
        if self._journal.noted(Step.STARTED) is None:
            self._start_services()
        self._reserve.remove()
        self._close(DONE)

    def _refuse_without_way_back(self, entry: SetEntry) -> None:
        """Ask every store whether it could be restored from the safety set, and hold the room for that, before anything is changed."""
        rooms = {}
        records = entry.manifest.stores if entry.manifest else {}
        for name, store in self._stores.items():
            with naming(name):
                foreseen = store.foresee(entry.path / name, records[name], None)
            rooms[name] = SwitchRoom(there=self._held_in(foreseen.bytes_needed)).to_json()
        self._journal.write(Step.NOTE, note=_ROOM, facts=rooms)
        self._reserve.hold(list(self._stores), [])

    def _held_in(self, needs: Mapping[Path, int]) -> dict[str, int]:
        """The same by directories in which a file of ours may lie: beside what the stores cover, or in our own. What is elsewhere, such as
        in the directory of a server, cannot be held.
        """
        covered = (path for declared in self._context.stack.stores.values() for path in covered_paths(declared))
        ours = {os.stat(each).st_dev: str(each) for each in (*(path.parent for path in covered), self._context.state) if each.is_dir()}
        found: dict[str, int] = {}
        for directory, count in needs.items():
            home = ours.get(os.stat(directory).st_dev) if directory.is_dir() else None
            if home is not None:
                found[home] = found.get(home, 0) + count
        return found

    def _take_back(self, why: str) -> str:
        """All stores from the safety set. The side that was live is kept beside, for whoever wants to see what the command has made."""
        if self._journal.noted(Step.GOING_BACK) is None:
            self._journal.write(Step.GOING_BACK, why=why, unreadable=self._cannot_be_read())
        self._stoppable.stop()
        self._reserve.remove()
        entry = self._context.sets.entry(str(self._journal.safety_set))
        records = entry.manifest.stores if entry.manifest else {}
        with self._context.sets.using(entry):
            if self._journal.noted(Step.ALL_STAGED) is None:
                self.stage(entry.path, records, None)
                self._journal.write(Step.ALL_STAGED)
            for name in self._stores:
                if self._journal.noted(Step.SWITCHED, name) is None:
                    self._context.progress.step(name, "going back")
                    self._journal.write(Step.SWITCHING, name)
                    with naming(name):
                        self._switch(name, there=True)
                    self._journal.write(Step.SWITCHED, name, ms=0.0)
        self._serve_what_was()
        self._reserve.remove()
        self._close(WENT_BACK)
        return "all stores are back as they were before"

    def _serve_what_was(self) -> None:
        self._stoppable.start_servers(self._ran_before)
        for name in self._stores:
            with naming(name):
                self._journal.write(Step.PROBED, name, counts=dict(self._probe(name)))
        self._stoppable.start_services(self._ran_before)

    def _cannot_be_read(self) -> list[str]:
        """The stores that the command has left in a state in which they are moved away and not asked."""
        found = []
        for name, store in self._stores.items():
            try:
                if not store.is_absent():
                    store.inspect()
            except StorekeeperError:
                with suppress(StorekeeperError):  # what has no raw copy is restored as it always is
                    store.raw_bytes()
                    found.append(name)
        return found

    @property
    def _unreadable(self) -> list[str]:
        return list((self._journal.noted(Step.GOING_BACK) or {}).get("unreadable", ()))

    @property
    def _reserve(self) -> Reserve:
        noted: Mapping[str, dict[str, dict[str, int]]] = (self._journal.noted(Step.NOTE) or {"facts": {}})["facts"]
        return Reserve(self._journal.token, {name: SwitchRoom.from_json(room) for name, room in noted.items()})
