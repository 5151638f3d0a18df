"""From the words of a command to its verb. Each verb's module, and what it needs, is loaded only when it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from storekeeper.cli import confirm
from storekeeper.cli.console import Console
from storekeeper.cli.document import Begun
from storekeeper.cli.progress import LineProgress, PlainProgress
from storekeeper.cli.words import Words, read
from storekeeper.host import jobs
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Refused
from storekeeper.stack.config import load_places
from storekeeper.verbs.report import Report

if TYPE_CHECKING:
    from storekeeper.sets.context import Context, Opened
    from storekeeper.sets.repository import StackSets


class Desk:
    """One command, with the places it is about. Raises Refused when they cannot be made out."""

    def __init__(self, words: Words, console: Console) -> None:
        self.words = words
        self.console = console
        self.places = load_places(words.options.config)
        if words.stack is not None and words.verb.name != "jobs":
            from storekeeper.verbs.directories import refuse_unknown_stack  # noqa: PLC0415

            refuse_unknown_stack(self.places, words.stack)
        if words.named_stores:
            from storekeeper.verbs.opening import declared, refuse_unknown_stores  # noqa: PLC0415

            refuse_unknown_stores(declared(self.places, self.stack_name), words.named_stores)

    @property
    def stack_name(self) -> str:
        if self.words.stack is None:
            raise ValueError(f"{self.words.verb.name} takes a stack")
        return self.words.stack

    def confirm(self) -> None:
        """Raises Refused unless nothing live is changed, or somebody said that it may be."""
        if not self.words.changes_live or confirm.is_confirmed(self.words):
            return
        confirm.refuse_without_terminal(self.words, self.console)
        plan = Desk(replace(self.words, plan=True, asks=True), self.console).call()
        if "plan" not in plan.result:
            return  # there is nothing to do, as the verb itself will say
        confirm.ask(self.words, self.console, self._shown(plan))
        if self.words.set is not None:
            self.words = replace(self.words, set=plan.result["plan"]["set"])  # what was shown is what is done

    def recorded(self) -> AbstractContextManager[jobs.Job]:
        """The run's record, open until it is finished."""
        from storekeeper.cli.following import job_id_of  # noqa: PLC0415
        from storekeeper.verbs.directories import jobs_folder  # noqa: PLC0415

        verb, arguments = self.words.verb.name, self.words.arguments()
        return jobs.recorded(jobs_folder(self.places, self.stack_name), verb, self.stack_name, arguments, job_id_of(verb))

    def call(self) -> Report:
        return CALLS[self.words.verb.name](self)

    def _shown(self, plan: Report) -> str:
        from storekeeper.cli.render import plans  # noqa: PLC0415

        begun = Begun(self.words.verb.name, self.stack_name, self.words.options.unusual_config)
        document = begun.ended(plan.ended(), plan.result, plan.problems)
        said = [f"  {problem['message']}" for problem in document["problems"]]
        return "\n".join([*plans.plan(document, self.console.paint_err), *said])

    @contextmanager
    def context(self, *, lock: bool, may_create: bool = False, foresees: bool = False, in_background: bool = False) -> Iterator[Context]:
        """All that the verb works with, and its progress on standard error while the block runs; `in_background` within the load
        that the stack file declares."""
        from storekeeper.verbs import opening  # noqa: PLC0415

        purpose = self.words.verb.name if lock else None
        with self.opened(in_background=in_background, lock=purpose) as opened:
            yield opening.with_sets(opened, self.places, may_create=may_create, foresees=foresees)

    @contextmanager
    def opened(self, *, in_background: bool = False, lock: str | None = None) -> Iterator[Opened]:
        """The same without the sets, for what works also where there is no repository yet."""
        from storekeeper.host import load  # noqa: PLC0415
        from storekeeper.verbs import opening  # noqa: PLC0415

        stack = opening.declared(self.places, self.stack_name)
        allowed = opening.Allowed(self.words.nobody_uses, self.words.no_owners)
        progress = self._progress()
        declared = stack.backup.load if in_background else None
        limits = load.Limits() if declared is None else load.Limits(declared.nice, declared.max_rate)
        try:
            with load.limited(limits), opening.opened(self.places, stack, progress, lock=lock, allowed=allowed) as opened:
                yield opened
        finally:
            progress.end()

    def sets(self) -> StackSets | None:
        from storekeeper.verbs.directories import known_sets  # noqa: PLC0415

        return known_sets(self.places, self.stack_name)

    def _progress(self) -> Progress:
        if self.console.quiet:
            return Progress()
        if self.console.redraws:
            return LineProgress(_write)
        return PlainProgress(_write, self.stack_name, self.words.verb.name)


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _backup(desk: Desk) -> Report:
    from storekeeper.verbs import opening  # noqa: PLC0415
    from storekeeper.verbs.backup import backup  # noqa: PLC0415
    from storekeeper.verbs.telling import told  # noqa: PLC0415

    def run() -> Report:
        with desk.context(lock=True, may_create=True, in_background=True) as context:
            return backup(context, frozenset(desk.words.accept_shrink))

    return told(opening.declared(desk.places, desk.stack_name).ping, desk.stack_name, run)


def _list(desk: Desk) -> Report:
    from storekeeper.verbs.listing import list_sets  # noqa: PLC0415

    return list_sets(desk.stack_name, desk.sets())


def _verify(desk: Desk) -> Report:
    from storekeeper.verbs.verify import verify  # noqa: PLC0415

    words = desk.words
    with desk.context(lock=False, in_background=True) as context:
        return verify(context, words.set, all=words.all, subset=words.read_subset)


def _prove(desk: Desk) -> Report:
    from storekeeper.verbs.prove import prove  # noqa: PLC0415

    with desk.context(lock=False, in_background=True) as context:
        return prove(context, desk.words.set)


def _check(desk: Desk) -> Report:
    import json  # noqa: PLC0415

    from storekeeper.verbs.check import CheckRequest, check  # noqa: PLC0415

    words = desk.words
    request = CheckRequest(words.rule, words.document, words.owner, stats=words.stats)
    tell = (lambda finding: desk.console.answer_line(json.dumps(finding))) if words.lines else None
    desk.console.has_answered = words.lines
    if words.repair_declared:
        from storekeeper.verbs.repair import repair_declared  # noqa: PLC0415

        with desk.opened(in_background=True, lock="repair") as context:
            return repair_declared(context, check(context, request))
    with desk.opened(in_background=True) as context:
        return check(context, request, tell)


def _repair(desk: Desk) -> Report:
    from storekeeper.consistency.plans import Scope  # noqa: PLC0415
    from storekeeper.verbs import repair  # noqa: PLC0415

    words = desk.words
    name = words.repair or ""
    if words.action == "plan":
        with desk.opened(in_background=True) as context:
            return repair.plan(context, Scope(words.rule, words.document, words.owner, words.at_once))
    if words.plan:
        with desk.opened() as context:
            return repair.show(context, name)
    with desk.opened(lock="repair") as context:
        if words.action == "reingest":
            from storekeeper.verbs.reingest import reingest  # noqa: PLC0415

            return reingest(context, name, words.limit)
        return repair.apply(context, name, words.limit) if words.action == "apply" else repair.undo(context, name)


def _history(desk: Desk) -> Report:
    from storekeeper.verbs.history import history  # noqa: PLC0415

    return history(desk.stack_name, desk.sets(), str(desk.words.id), desk.words.rule)


def _query(desk: Desk) -> Report:
    from storekeeper.verbs import opening  # noqa: PLC0415
    from storekeeper.verbs import query as verb  # noqa: PLC0415

    stack, words = opening.declared(desk.places, desk.stack_name), desk.words
    if words.query is None:
        return verb.list_queries(stack)
    store = opening.open_store_of(stack, verb.chosen(stack, words.query).store, desk.places)
    return verb.query(stack, words.query, store, words.values, words.limit)


def _examine(desk: Desk) -> Report:
    from storekeeper.verbs.examine import examine  # noqa: PLC0415

    with desk.opened(in_background=True) as context:
        return examine(context, desk.words.store)


def _evict(desk: Desk) -> Report:
    from storekeeper.verbs import evict, opening  # noqa: PLC0415
    from storekeeper.verbs.jobs import running_pids  # noqa: PLC0415

    words, name = desk.words, str(desk.words.store)
    store = opening.open_store_of(opening.declared(desk.places, desk.stack_name), name, desk.places)
    holder = evict.Holder(desk.stack_name, store, int(words.pid or 0), str(words.program), running_pids(desk.places))
    return evict.show(holder) if words.plan else evict.evict(holder)


def _restore(desk: Desk) -> Report:
    from storekeeper.verbs.restore import RestoreRequest, restore  # noqa: PLC0415

    words = desk.words
    if words.document is not None:
        from storekeeper.verbs.restore_document import DocumentRequest, restore_document  # noqa: PLC0415

        wanted = DocumentRequest(str(words.set), words.document, words.rule, words.plan)
        with desk.context(lock=not words.plan) as context:
            return restore_document(context, wanted)
    request = RestoreRequest(
        set=words.set,
        back=words.back,
        only=words.only,
        plan=words.plan,
        asks=words.asks,
        stage_dir=words.stage_dir,
        accept_unreadable=frozenset(words.accept_unreadable),
        allow_disagreement=words.allow_disagreement,
    )
    with desk.context(lock=not words.plan) as context:
        return restore(context, request)


def _reset(desk: Desk) -> Report:
    from storekeeper.verbs.reset import reset  # noqa: PLC0415

    words = desk.words
    with desk.context(lock=not words.plan, may_create=True, foresees=words.plan) as context:  # its safety set may be the first
        return reset(context, plan=words.plan, accept_unreadable=frozenset(words.accept_unreadable))


def _recover(desk: Desk) -> Report:
    from storekeeper.verbs.recover import recover  # noqa: PLC0415

    words = desk.words
    with desk.context(lock=not words.plan) as context:
        return recover(context, str(words.store), plan=words.plan)


def _migrate(desk: Desk) -> Report:
    from storekeeper.verbs.migrate import ask, migrate  # noqa: PLC0415

    words = desk.words
    if words.action in ("current", "history"):
        with desk.opened() as opened:
            return ask(opened, words.action, words.values)
    with desk.context(lock=not words.only_looks) as context:
        return migrate(context, words.action or "upgrade", words.values, plan=words.plan)


def _resume(desk: Desk) -> Report:
    from storekeeper.verbs.resume import resume  # noqa: PLC0415

    with desk.context(lock=True) as context:
        return resume(context)


def _prune(desk: Desk) -> Report:
    from storekeeper.verbs.jobs import records_of  # noqa: PLC0415
    from storekeeper.verbs.prune import prune  # noqa: PLC0415

    words, confirmed = desk.words, confirm.is_confirmed(desk.words)
    with desk.context(lock=not words.dry_run, in_background=True) as context:
        return prune(context, records_of(desk.places, desk.stack_name), dry_run=words.dry_run, confirmed=confirmed)


def _send(desk: Desk) -> Report:
    from storekeeper.verbs.passing import send_set  # noqa: PLC0415

    if sys.stdout.isatty():
        raise Refused("a set is no text for a terminal", next=f"storekeeper send {desk.stack_name} >FILE")
    with desk.context(lock=False, in_background=True) as context:
        report = send_set(context, desk.words.set, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return report


def _receive(desk: Desk) -> Report:
    from storekeeper.verbs.passing import receive_set  # noqa: PLC0415

    if sys.stdin.isatty():
        raise Refused("a set comes on standard input", next=f"storekeeper receive {desk.stack_name} <FILE")
    with desk.context(lock=True, may_create=True, in_background=True) as context:
        return receive_set(context, sys.stdin.buffer)


def _pin(desk: Desk) -> Report:
    from storekeeper.verbs.directories import locked_sets  # noqa: PLC0415
    from storekeeper.verbs.pin import pin, unpin  # noqa: PLC0415

    verb = desk.words.verb.name
    with locked_sets(desk.places, desk.stack_name, verb) as sets:
        return (pin if verb == "pin" else unpin)(sets, str(desk.words.set))


def _jobs(desk: Desk) -> Report:
    from storekeeper.verbs.jobs import list_jobs, stop_job  # noqa: PLC0415

    if desk.words.stop is not None:
        return stop_job(desk.places, desk.words.stack, desk.words.stop)
    return list_jobs(desk.places, desk.words.stack)


def _due(desk: Desk) -> Report:
    from storekeeper.cli import following  # noqa: PLC0415
    from storekeeper.stack.outline import outline  # noqa: PLC0415
    from storekeeper.verbs import due  # noqa: PLC0415
    from storekeeper.verbs.directories import jobs_folder, state_of  # noqa: PLC0415
    from storekeeper.verbs.following import Wanted  # noqa: PLC0415

    def words_of(verb: str, arguments: Sequence[str]) -> Words:
        return replace(read([verb, desk.stack_name, *arguments]), options=desk.words.options)

    def run(entry: due.Entry) -> jobs.Record:
        record = following.run_to_its_end(Desk(words_of(entry.declared.verb, entry.declared.arguments), desk.console))
        jobs.hear(record)
        return record

    declared = outline(desk.places, desk.stack_name)
    entries = []
    for each in declared.schedule:
        words = words_of(each.verb, each.arguments)
        if words.verb.job and not words.only_looks:  # what leaves no record is not missed either
            entries.append(due.Entry(each, Wanted(each.verb, words.arguments())))
    state, folder = state_of(desk.places, desk.stack_name), jobs_folder(desk.places, desk.stack_name)
    return due.due(state, folder, entries, declared.zone, declared.spread, run)


def _status(desk: Desk) -> Report:
    from storekeeper.verbs.status import status  # noqa: PLC0415

    return status(desk.places, desk.words.stack, live=desk.words.live)


def _doctor(desk: Desk) -> Report:
    from storekeeper.verbs.doctor import doctor  # noqa: PLC0415

    return doctor(desk.places, desk.words.stack)


CALLS: Mapping[str, Callable[[Desk], Report]] = {
    "backup": _backup,
    "list": _list,
    "verify": _verify,
    "prove": _prove,
    "check": _check,
    "repair": _repair,
    "history": _history,
    "query": _query,
    "examine": _examine,
    "evict": _evict,
    "restore": _restore,
    "reset": _reset,
    "recover": _recover,
    "migrate": _migrate,
    "resume": _resume,
    "prune": _prune,
    "send": _send,
    "receive": _receive,
    "pin": _pin,
    "unpin": _pin,
    "jobs": _jobs,
    "due": _due,
    "status": _status,
    "doctor": _doctor,
}
