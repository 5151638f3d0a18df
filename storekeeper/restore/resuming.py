"""Taking up a walk that was interrupted: first thing in every verb that writes, and a verb of its own."""

from __future__ import annotations

from dataclasses import dataclass

from storekeeper.outcomes import Problem, Severity
from storekeeper.restore.interruption import Interruption
from storekeeper.restore.journal import Journal, spoken_time, unfinished
from storekeeper.restore.migration import Migrating
from storekeeper.restore.pausing import REPAIR
from storekeeper.restore.walk import ABANDONED, DONE, MIGRATION, WENT_BACK, Walk
from storekeeper.sets.context import Context

_SAID = {
    DONE: "it was finished",
    WENT_BACK: "all stores are back as they were before it",
    ABANDONED: "it had switched nothing: what it had staged was removed, the live data was not touched",
}


@dataclass(frozen=True)
class Resumed:
    """An interrupted walk that is closed now, and how: done, went back, or abandoned."""

    journal: Journal
    walk: Walk
    how: str

    @property
    def problem(self) -> Problem:
        begun = self.journal.begun
        if self.journal.purpose == REPAIR:
            said = (
                f"the repair begun at {spoken_time(self.journal.begun_at)} had been interrupted: the services that it had stopped run again"
            )
            return Problem(said, Severity.WARNING, next=f"storekeeper repair undo {begun['stack']} {begun['plan']}")
        what = f"the {self.journal.purpose} of {begun['set']}" if begun["set"] else f"the {self.journal.purpose}"
        return Problem(f"{what} begun at {spoken_time(self.journal.begun_at)} had been interrupted: {_SAID[self.how]}", Severity.WARNING)


def take_up(context: Context) -> Resumed | None:
    """End the interrupted walk; None when there is none. Raises Failed when it could not be ended: then it stays open."""
    journal = unfinished(context.state)
    if journal is None:
        return None
    walk = (Migrating if journal.purpose == MIGRATION else Walk)(context, journal, Interruption())
    return Resumed(journal, walk, walk.resume())


def refuse_or_resume(context: Context) -> list[Problem]:
    """What every writing verb calls first: end an interrupted walk and say so. Raises when that fails; the verb must not go on then."""
    resumed = take_up(context)
    return [] if resumed is None else [resumed.problem]
