"""Services stopped for a repair of stores that nobody else may have open, and started afterwards whatever happens.

What ran before stands in a journal before anything is stopped. One that was killed is unfinished, and ended as a restore is: by
`resume`, or by the next verb that takes up what is open; its services run again then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from storekeeper.host import clock
from storekeeper.outcomes import StorekeeperError
from storekeeper.restore.interruption import Interruption
from storekeeper.restore.journal import Journal, Step
from storekeeper.restore.services import Stoppable
from storekeeper.sets.context import Opened

REPAIR = "repair"
_ENDED = "ended"


def stopped_for(context: Opened, stores: Iterable[str]) -> list[str]:
    """The running services that such a repair would stop. Raises Unknown where a supervisor cannot be asked."""
    return Stoppable.of(context, {}).running() if any(context.stores[name].mends_alone for name in set(stores)) else []


@contextmanager
def services_stopped_for(context: Opened, stores: Iterable[str], plan: str) -> Iterator[None]:
    """Stop the stack's services while the block runs, where one of these stores can only be mended while nobody uses it.

    `plan` is the repair's, for whoever finds the journal. Raises Unknown where a supervisor cannot be asked, Failed where a service does
    not stop, or does not start again: the journal stays open then, and `resume` tries again.
    """
    running = stopped_for(context, stores)
    if not running:
        yield
        return
    stoppable = Stoppable.of(context, {})
    journal = Journal.create(context.state, _facts(context, plan))
    journal.write(Step.STOPPING, running=running)
    interruption = Interruption()
    try:
        context.progress.step(None, "stopping services")
        with interruption.later():
            stoppable.stop()
        interruption.check()
        yield
    except BaseException as error:
        try:
            _start(context, stoppable, journal, running)
        except StorekeeperError as again:
            error.add_note(f"{again.message}: storekeeper resume {context.stack.stack}")
        raise
    _start(context, stoppable, journal, running)


def _start(context: Opened, stoppable: Stoppable, journal: Journal, running: list[str]) -> None:
    context.progress.step(None, "starting services")
    with Interruption().later():
        journal.write(Step.STARTING)
        stoppable.start_services(running)
        journal.write(Step.CLOSED, result=_ENDED, kept=None, until=clock.rfc3339(clock.now()))


def _facts(context: Opened, plan: str) -> dict[str, object]:
    """As a walk's journal has them, of one that switches no store."""
    nothing: dict[str, object] = {"set": None, "undoes": None, "safety_set": None, "sequence": 0}
    return {**nothing, "purpose": REPAIR, "stack": context.stack.stack, "stores": [], "absent": [], "unreadable": [], "plan": plan}
