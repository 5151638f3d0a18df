"""The walk from staged stores to switched ones, and the way back; a crash anywhere in it is taken up from the journal alone.

Services are stopped, each store is switched, the stores' own servers are started, each store is probed while nothing but us
uses it, and only then the services are started: a failure up to there loses no row that anybody wrote since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from storekeeper.host import clock
from storekeeper.outcomes import Failed, Refused, StorekeeperError, naming, said_by_the_system
from storekeeper.restore import bare, commands
from storekeeper.restore.interruption import Interruption
from storekeeper.restore.journal import Journal, Step, StoreLog, journal_of
from storekeeper.restore.reserve import Reserve
from storekeeper.restore.services import Stoppable
from storekeeper.restore.trial import Applied
from storekeeper.sets.comparison import refuse_difference
from storekeeper.sets.context import Context
from storekeeper.stores.protocol import Facts, Store, SwitchRoom
from storekeeper.stores.record import StoreRecord

RESTORE = "restore"
RESET = "reset"
RECOVERY = "recovery"
BACK = "back"
MIGRATION = "migration"

DONE = "done"
WENT_BACK = "went back"
ABANDONED = "abandoned"

# The sides that are still there afterwards.
_KEPT = {
    (DONE, RESTORE): "old",
    (DONE, RESET): "old",
    (DONE, RECOVERY): "old",
    (DONE, BACK): "stage",
    (WENT_BACK, MIGRATION): "old",
}


class Walk:
    """One journal's walk. A `restore`, a `reset` and a `recovery` switch to what they staged; a `back` to the sides that an earlier one
    kept.
    """

    def __init__(self, context: Context, journal: Journal, interruption: Interruption) -> None:
        self._context = context
        self._journal = journal
        self._interruption = interruption
        self._undoes = journal_of(context.state, str(journal.begun["undoes"])) if journal.purpose == BACK else None
        self._stores = declared(context, journal.begun["stores"])
        self._stoppable = Stoppable.of(context, self._stores)
        self.applied: Applied | None = None  # by the command that has just made the schema of what was left bare

    def stop_first(self) -> None:
        """Stop what a switch needs stopped before anything is staged: for what is made from the live files themselves, which nobody may
        change from then on. Raises Failed or Unknown where some process would go on using them.
        """
        for name, store in self._stores.items():
            place = store.place(self._journal.token, None, raw=name in self._unreadable)
            self._journal.write(Step.PLACED, name, place=place)
        with self._interruption.later():
            self._stop()
            self._refuse_holders()

    def stage(self, folder: Path, records: Mapping[str, StoreRecord], stage_dir: Path | None) -> None:
        """Load every store's part of the set in `folder` next to its live data, which is not touched, and compare."""
        with ExitStack() as begun:
            going_on = {name for name in self._stores if self._begin_stage(name, folder, records[name], stage_dir, begun)}
            for name in sorted(self._stores, key=lambda name: name in going_on):
                record = records[name]
                self._context.progress.step(name, "staging", record.bytes)
                with naming(name):
                    staged = self._stores[name].stage(folder / name, record, self._place(name))
                    refuse_difference(staged, record, "what was staged")
                self._journal.write(Step.STAGED, name, record=record.to_json())

    def _begin_stage(self, name: str, folder: Path, record: StoreRecord, stage_dir: Path | None, begun: ExitStack) -> bool:
        """Whether it goes on by itself while other stores are staged; `begun` ends that."""
        store = self._stores[name]
        with naming(name):
            place = store.place(self._journal.token, stage_dir, raw=record.is_raw or name in self._unreadable)
            self._journal.write(Step.PLACED, name, place=place)
            going_on = store.begin_stage(folder / name, record, place)
        if going_on is None:
            return False
        begun.enter_context(going_on)
        return True

    def finish(self) -> None:
        """From all staged to closed. A failure goes back by itself, and is raised as Failed that says where things stand now."""
        try:
            with self._interruption.later():
                if self._journal.noted(Step.STARTED) is None:
                    self._stop()
                    self._refuse_holders()
                    self._reserve_room()
                    self._switch_all()
                    self._serve()
                self._close(DONE)
        except BaseException as error:
            raise self.undo(error) from error

    def undo(self, cause: BaseException) -> Failed:
        """Return to what was live before, as far as anything was changed at all; the error to raise says how that went."""
        why = said(cause)
        store = cause.store if isinstance(cause, StorekeeperError) else None
        try:
            with self._interruption.later():
                after = self._go_back(why) if self._journal.stores(Step.SWITCHING) else self._abandon(why)
        except (StorekeeperError, OSError) as second:
            stuck = f"{why}; the way back failed too: {said(second)}. What was stopped stays stopped until it is resumed"
            return Failed(stuck, store=store, next=f"storekeeper resume {self._context.stack.stack}")
        return Failed(f"{why}; {after}", store=store)

    def resume(self) -> str:
        """End what was interrupted: returns DONE, WENT_BACK or ABANDONED. Raises Failed where `finish` does, or while it is stuck."""
        self._refuse_undeclared()
        if self._journal.stores(Step.SWITCHING) and self._stoppable.running():
            self._journal.write(Step.STARTING)  # a reboot has started them: they may have written to either side
        if self._journal.stores(Step.SWITCHING) and self._journal.noted(Step.GOING_BACK) is None:
            self.finish()
            return DONE
        with self._interruption.later():
            if self._journal.noted(Step.GOING_BACK) is not None:
                self._go_back("it was interrupted")
                return WENT_BACK
            self._abandon("it was interrupted")
            return ABANDONED

    def results(self) -> dict[str, dict[str, Any]]:
        """What the contract says of each store, from the journal alone."""
        return {name: self._result(name, store) for name, store in self._stores.items()}

    def _stop(self) -> None:
        if self._journal.noted(Step.STOPPING) is None:
            self._journal.write(Step.STOPPING, running=self._stoppable.running())
        self._context.progress.step(None, "stopping services")
        self._stoppable.stop()
        self._interruption.check()

    def _refuse_holders(self) -> None:
        """Who was only warned of because services would be stopped must be gone now. Nothing was switched yet, so nothing goes back."""
        if not self._journal.stores(Step.SWITCHING):
            for name, store in self._stores.items():
                with naming(name):
                    store.refuse_holders(self._place(name))

    def _reserve_room(self) -> None:
        """Hold what the switches and the way back from them will need. Sizes are taken before the first: they change by it."""
        if not self._journal.stores(Step.SWITCHING) and self._journal.noted(Step.NOTE) is None:
            rooms = {name: store.switch_room(self._place(name)).to_json() for name, store in self._stores.items()}
            self._journal.write(Step.NOTE, note="room", facts=rooms)
        self._reserve.hold(*self._left_and_done())

    def _left_and_done(self) -> tuple[list[str], list[str]]:
        done = self._journal.stores(Step.SWITCHED)
        return [name for name in self._stores if name not in done], done

    @property
    def _reserve(self) -> Reserve:
        """Empty in a journal that knew of none."""
        noted = self._journal.noted(Step.NOTE) or {"facts": {}}
        rooms = {name: SwitchRoom.from_json(room) for name, room in noted["facts"].items()}
        return Reserve(self._journal.token, rooms)

    def _switch_all(self) -> None:
        for name in self._stores:
            if self._journal.noted(Step.SWITCHED, name) is None:
                self._context.progress.step(name, "switching")
                self._journal.write(Step.SWITCHING, name)
                self._reserve.let_go(name, back=False)
                started = clock.monotonic()
                with naming(name):
                    self._switch(name, there=True)
                self._journal.write(Step.SWITCHED, name, ms=round((clock.monotonic() - started) * 1000, 3))
                self._reserve.hold(*self._left_and_done())
            self._interruption.check()

    def _serve(self) -> None:
        """Start what was stopped, probing in between."""
        self._stoppable.start_servers(self._ran_before)
        self._journal.write(Step.SERVING)
        for name in self._stores:
            if self._journal.noted(Step.PROBED, name) is None:
                self._context.progress.step(name, "probing")
                with naming(name):
                    counts = self._probe(name)
                self._journal.write(Step.PROBED, name, counts=dict(counts))
            self._interruption.check()
        self._carry_out_commands()
        self._start_services()
        self._interruption.check()

    def _carry_out_commands(self) -> None:
        """What a reset's stack declares for its emptied stores: they answer by now, and nobody else writes yet, so that the way back
        from a command that fails loses nothing. One that was cut off is not begun again: nobody knows how far it came.
        """
        wanted = commands.read(self._journal.begun.get("after", ()))
        for number, command in enumerate(wanted):
            last = self._journal.noted(Step.COMMAND) or {"number": -1, "ended": True}
            if number < last["number"] or (number == last["number"] and last["ended"]):
                continue
            if number == last["number"]:
                raise Failed(f"{command.spoken} was interrupted, and nobody knows how far it came")
            self._context.progress.step(None, f"running {command.spoken}")
            self._journal.write(Step.COMMAND, number=number, ended=False)
            commands.carry_out(self._context, command)
            if number == 0 and self._journal.begun.get("bare"):
                self.applied = bare.refuse_unmade(self._context, self._journal.begun["bare"], command.spoken)
            self._journal.write(Step.COMMAND, number=number, ended=True)
            self._interruption.check()
        if wanted:
            self._count_again()

    def _count_again(self) -> None:
        """What the commands have written. Raises Failed where a store does not answer any more."""
        for name, store in self._stores.items():
            self._journal.write(Step.PROBED, name, counts=dict(self._refuse_silence(name, store)))

    def _start_services(self) -> None:
        self._context.progress.step(None, "starting services")
        self._journal.write(Step.STARTING)
        self._stoppable.start_services(self._ran_before)
        self._journal.write(Step.STARTED)

    def _go_back(self, why: str) -> str:
        services_wrote = self._journal.noted(Step.STARTING) is not None
        if self._journal.noted(Step.GOING_BACK) is None:
            self._journal.write(Step.GOING_BACK, why=why)
        self._stoppable.stop()
        for name in reversed(self._journal.stores(Step.SWITCHING)):
            self._context.progress.step(name, "going back")
            self._reserve.let_go(name, back=True)
            with naming(name):
                self._switch(name, there=False)
            self._journal.write(Step.BACK, name)
            self._reserve.hold_on([each for each in self._journal.stores(Step.SWITCHING) if each not in self._journal.stores(Step.BACK)])
        after = self._serve_as_before()
        if not services_wrote:
            self._discard_stages()
        self._close(WENT_BACK, keeps_stages=services_wrote)
        return after

    def _serve_as_before(self) -> str:
        """Start what ran before, and say how things stand. What cannot serve a store that could not be read before keeps nothing open."""
        after = ["all stores are back as they were before"]
        for step in (
            lambda: self._stoppable.start_servers(self._ran_before),
            lambda: [self._refuse_silence(name, store) for name, store in self._stores.items()],
            lambda: self._stoppable.start_services(self._ran_before),
        ):
            try:
                step()
            except StorekeeperError as error:
                if not self._unreadable:
                    raise
                after.append(said(error))
        return "; ".join(after)

    def _abandon(self, why: str) -> str:
        self._journal.write(Step.ABANDONING, why=why)
        self._stoppable.start_servers(self._ran_before)
        self._stoppable.start_services(self._ran_before)
        self._discard_stages()
        self._close(ABANDONED)
        return "the live data was not touched"

    def _switch(self, name: str, *, there: bool) -> None:
        """One store to the walk's goal (`there`) or from it. Going there is a switch in a restore and a switch back in a `back`."""
        store, log = self._stores[name], StoreLog(self._journal, name, self._undoes)
        forward = there == (self._journal.purpose != BACK)
        (store.switch if forward else store.switch_back)(self._place(name), log)

    def _probe(self, name: str) -> Mapping[str, int]:
        """Raises Failed unless the store answers and, after a restore, holds exactly what the set says."""
        store, staged = self._stores[name], self._journal.noted(Step.STAGED, name)
        if staged is None:
            return self._refuse_silence(name, store)
        record = StoreRecord.from_json(staged["record"])
        if record.is_raw:
            return self._refuse_absence(name, store)
        store.probe(self._place(name), record)
        return record.counts

    def _refuse_silence(self, name: str, store: Store) -> Mapping[str, int]:
        """The counts of a store that answers; none of one that was absent before the restore, or could not be read, and is so again."""
        origin = self._undoes or self._journal
        with naming(name):
            if name in origin.begun["absent"] and store.is_absent():
                return {}
            try:
                return store.inspect().counts
            except StorekeeperError:
                if name not in self._unreadable:
                    raise
                return self._refuse_absence(name, store)

    def _refuse_absence(self, name: str, store: Store) -> Mapping[str, int]:
        """No counts: nothing is known of the store but that its files are there."""
        if store.is_absent():
            raise Failed("the files that could not be read are not there any more", store=name)
        return {}

    def _discard_stages(self) -> None:
        for name in self._journal.stores(Step.PLACED):
            with naming(name):
                self._stores[name].discard_stage(self._place(name))

    def _close(self, result: str, *, keeps_stages: bool = False) -> None:
        """`kept` says which sides are still there, for `--back` and until their time is over."""
        kept = _KEPT.get((result, self._journal.purpose), "stage" if keeps_stages else None)
        self._reserve.remove()
        until = clock.now() + self._context.stack.restore.keep_old
        self._journal.write(Step.CLOSED, result=result, kept=kept, until=clock.rfc3339(until))

    def _place(self, name: str) -> Facts:
        placed = (self._undoes or self._journal).noted(Step.PLACED, name)
        if placed is None:
            raise Failed(f"the journal {self._journal.path} does not say where it was staged", store=name)
        return dict(placed["place"])

    def _refuse_undeclared(self) -> None:
        gone = self._stoppable.unknown(self._ran_before)
        if gone:
            said_gone = f"{', '.join(gone)}, which a {self._journal.purpose} stopped"
            raise Refused(f"the stack file no longer declares {said_gone}: declare it as before, then try again")

    @property
    def _unreadable(self) -> Sequence[str]:
        """The stores of which only a raw copy could be kept: they are moved, and nothing is asked of them."""
        return list((self._undoes or self._journal).begun.get("unreadable", ()))

    @property
    def _ran_before(self) -> Sequence[str]:
        return list((self._journal.noted(Step.STOPPING) or {"running": []})["running"])

    def _result(self, name: str, store: Store) -> dict[str, Any]:
        switched, probed = self._journal.noted(Step.SWITCHED, name), self._journal.noted(Step.PROBED, name)
        ms = float(switched["ms"]) if switched else 0.0
        stopped, serving = self._journal.entry(Step.STOPPING), self._journal.entry(Step.SERVING)
        was_stopped = store.needs_stopped and store.runtime is not None and store.runtime.label in self._ran_before
        down = (serving.at - stopped.at).total_seconds() if was_stopped and stopped and serving else ms / 1000
        return {"switch_ms": ms, "downtime_s": round(down, 3), "counts": probed["counts"] if probed else {}}


def declared(context: Context, names: Sequence[str]) -> dict[str, Store]:
    """The opened stores of these names. Raises Refused when the stack file no longer declares one."""
    gone = [name for name in names if name not in context.stores]
    if gone:
        raise Refused(f"the stack file no longer declares {', '.join(gone)}: declare it as before, then try again", store=gone[0])
    return {name: context.stores[name] for name in names}


def said(error: BaseException) -> str:
    """Why, in words: a sentence of ours, or what the system said."""
    if isinstance(error, StorekeeperError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return said_by_the_system(error)
    if not isinstance(error, Exception):
        return f"it was told to stop ({str(error) or type(error).__name__})"
    return f"{type(error).__name__} {error}".strip()
