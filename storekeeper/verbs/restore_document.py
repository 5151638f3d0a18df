"""restore --document: bring one document back out of a set, in all places of its rule, and touch nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from storekeeper.consistency import bringing, log, plans
from storekeeper.consistency.bringing import Bringing, Found
from storekeeper.consistency.places import authority_of, can_mend, places_of
from storekeeper.host import clock, locks, space
from storekeeper.outcomes import Failed, Problem, Refused, Severity, StorekeeperError, Unknown, naming, said_by_the_system
from storekeeper.restore.journal import journals, refuse_unfinished
from storekeeper.restore.pausing import services_stopped_for, stopped_for
from storekeeper.sets.context import Context
from storekeeper.sets.copies import opened_copy
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.repository import SetEntry
from storekeeper.stack.rules import Rule
from storekeeper.stores.identities import Remarks
from storekeeper.stores.protocol import Copy, Part
from storekeeper.verbs.check import chosen
from storekeeper.verbs.report import Report

_MOST_DIFFERENCES = 10  # of one place
_ELSEWHERE = "set `scratch:` in storekeeper.yml to a directory with room"


@dataclass(frozen=True)
class DocumentRequest:
    """Which document of which set, by which rule; the only one that knows it where None."""

    set: str
    document: str
    rule: str | None = None
    plan: bool = False


def restore_document(context: Context, request: DocumentRequest) -> Report:
    """Have a document's places hold what a set holds of it. What stood there is kept, and the answer names the command that returns.

    Raises Refused or Unknown while nothing was changed. What fails later is taken back at once; where that fails too, the error names
    the command that does it.
    """
    refuse_unfinished(journals(context.state))
    _refuse_interrupted(context)
    rules = _mendable(context, request.rule)
    entry = context.sets.resolve(request.set).entry
    with context.sets.using(entry), ExitStack() as held:
        copies = _Copies(context, entry, _manifest_of(entry), rules, request.document, held)
        name, rule = _knowing(copies, rules, entry, request.document, context.stack.stack)
        token = secrets.token_hex(4)
        open_copies = {place.store: copies[place.store] for place in places_of(rule)}
        with _before_any_change():
            found = bringing.compared(rule, request.document, token, context.stores, open_copies, context.progress)
        told = {"set": entry.id, "document": request.document, "rule": name, "places": [_told(each) for each in found]}
        if request.plan:
            return Report({"plan": {**told, "stores": {}, "services": stopped_for(context, open_copies)}})
        if not any(each.matched.rest or each.matched.beyond for each in found):
            same = Problem(f"document {request.document[:80]!r} is live as the set holds it: nothing was changed", Severity.INFO)
            return Report({**told, "repair": None, "back": None}, [same])
        made = _publish(context, told, token, name, rule, found)
        _carry_out(context, made, open_copies)
    log.say(context.state, f"{name} document {request.document[:200]!r} was brought back out of set {entry.id}: repair {made.id}")
    return Report({**told, "repair": made.id, "back": f"storekeeper repair undo {context.stack.stack} {made.id}"})


class _Copies:
    """The copies of one set's stores that rules name, each made when it is first asked for, and open until the run ends."""

    def __init__(
        self, context: Context, entry: SetEntry, manifest: Manifest, rules: Mapping[str, Rule], document: str, held: ExitStack
    ) -> None:
        self._context = context
        self._entry = entry
        self._manifest = manifest
        self._held = held
        self._open: dict[str, Copy] = {}
        places = [place for rule in rules.values() for place in places_of(rule)]
        self._parts = {place.store: Part(document, [each.source for each in places if each.store == place.store]) for place in places}
        self._refuse_without_room()

    def __getitem__(self, store: str) -> Copy:
        if store not in self._open:
            self._context.progress.step(store, "restoring into a scratch place")
            with self._before(store):
                copy = opened_copy(self._context, self._entry, self._manifest, store, self._parts[store])
                self._open[store] = self._held.enter_context(copy)
        return self._open[store]

    def _refuse_without_room(self) -> None:
        whole = [name for name in self._parts if name in self._manifest.stores and not self._context.stores[name].copies_parts]
        needed = sum(self._manifest.stores[name].bytes for name in whole)
        space.check({self._context.scratch: needed}, purpose="the scratch copy of the set", next=_ELSEWHERE)

    @contextmanager
    def _before(self, store: str) -> Iterator[None]:
        """What is wrong with the set is a reason not to begin."""
        if store not in self._manifest.stores:
            raise Refused(f"set {self._entry.id} does not hold the store {store}: nothing was changed", store=store)
        try:
            yield
        except Failed as error:
            if space.is_for_want_of_room(error):
                raise Unknown(f"{error.message}: nothing was changed", store=store, next=_ELSEWHERE) from error
            following = f"storekeeper verify {self._context.stack.stack} {self._entry.id}"
            said = f"set {self._entry.id} cannot be used, and nothing was changed: {error.message}"
            raise Refused(said, store=store, next=following) from error
        except OSError as error:
            raise Unknown(f"the scratch place cannot be used: {said_by_the_system(error)}", store=store, next=_ELSEWHERE) from error


def _refuse_interrupted(context: Context) -> None:
    """Raises Refused while a document is half brought back: another run is at work on it, or it was interrupted."""
    stack, is_at_work = context.stack.stack, locks.is_held_elsewhere(locks.lock_in(context.state))
    for name in plans.all_of(context.state):
        made = plans.opened(context.state, name)
        if made.restores is not None and made.state() in (bringing.APPLYING, bringing.LAID, bringing.UNDOING):
            raise Refused(
                f"document {made.restores['document'][:80]!r} is being brought back by a run that has not ended",
                next=f"storekeeper jobs {stack}" if is_at_work else f"storekeeper repair undo {stack} {name}",
            )


def _mendable(context: Context, wanted: str | None) -> Mapping[str, Rule]:
    """The rules that say of every place what of a document stands there. Raises Refused where none does."""
    rules = chosen(context, wanted)
    silent = {name: next((place.name for place in places_of(rule) if not can_mend(rule, place)), None) for name, rule in rules.items()}
    found = {name: rule for name, rule in rules.items() if silent[name] is None}
    if not found:
        name, place = next(iter(silent.items()))
        raise Refused(
            f"the rule {name} does not say which rows of {place} are a document's: nothing can be brought back by it",
            next="declare `rows` beside the `query` in the stack file",
        )
    return found


def _manifest_of(entry: SetEntry) -> Manifest:
    if entry.manifest is None:
        raise Refused(f"set {entry.id} cannot be used: {entry.reason}")
    return entry.manifest


def _knowing(copies: _Copies, rules: Mapping[str, Rule], entry: SetEntry, document: str, stack: str) -> tuple[str, Rule]:
    """The one rule whose authority has the document in the set. Raises Refused for none, and for several."""
    found = []
    for name, rule in rules.items():
        authority = authority_of(rule)
        with naming(authority.store):
            known = copies[authority.store].identities(authority.source, Remarks())
            if sum(each.id == document for each in known):  # read to its end: see `identities`
                found.append(name)
    if not found:
        raise Refused(f"set {entry.id} holds no document {document[:80]!r}: nothing was changed", next=f"storekeeper list {stack}")
    if len(found) > 1:
        raise Refused(
            f"the rules {' and '.join(found)} both know a document {document[:80]!r}",
            next=f"say which one is meant: --rule {found[0]}",
        )
    return found[0], rules[found[0]]


@contextmanager
def _before_any_change() -> Iterator[None]:
    """A store that cannot be read now is a reason not to begin."""
    try:
        yield
    except Failed as error:
        raise Unknown(f"{error.message}: nothing was changed", store=error.store, next=error.next) from error


def _publish(context: Context, told: Mapping[str, Any], token: str, name: str, rule: Rule, found: Sequence[Found]) -> plans.Plan:
    now = clock.now()
    stores = sorted({place.store for place in places_of(rule)})
    facts = {
        "stack": context.stack.stack,
        "host": context.host,
        "created": clock.rfc3339(now),
        "restores": {"set": told["set"], "document": told["document"], "rule": name, "stores": stores, "token": token},
        "rules": {name: rule.digest},
        "authority": {},
        "removals": {},
        "documents": {},
        "reingest": 0,
        "waiting": 0,
        "by_hand": 0,
        "samples": [],
        "space": {"needed": 0, "free": space.free_bytes(context.state)},
    }
    with plans.making(context.state) as making:
        making.add(bringing.entries(name, found), ())
        return making.publish(facts, now)


def _carry_out(context: Context, made: plans.Plan, copies: Mapping[str, Copy]) -> None:
    run = Bringing(made, context.stack.consistency, context.stores, context.progress)
    try:
        run.lay(copies)
        with services_stopped_for(context, run.stores, made.id):
            run.apply()
    except Exception as error:
        try:
            with services_stopped_for(context, run.stores, made.id):
                run.undo()
        except (StorekeeperError, OSError) as again:
            error.add_note(f"it could not be taken back either ({again}): storekeeper repair undo {context.stack.stack} {made.id}")
        raise


def _told(found: Found) -> dict[str, Any]:
    _, away, here = found.matched
    if not away and not here:
        change = "same"
    elif not found.there:
        change = "removed"
    else:
        change = "replaced" if found.now else "put back"
    differs = [sentence[:200] for sentence in islice(bringing.differences(found), _MOST_DIFFERENCES)]
    return {
        "place": found.place.name,
        "store": found.place.store,
        "now": len(found.now),
        "after": len(found.there),
        "change": change,
        "differs": differs,
    }
