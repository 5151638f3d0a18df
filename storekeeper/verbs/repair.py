"""repair: plan what may be removed, apply it with everything kept, undo it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from storekeeper.consistency import plans
from storekeeper.consistency.bringing import Bringing
from storekeeper.consistency.checking import Checking, Look
from storekeeper.consistency.places import can_mend, replicas_of
from storekeeper.consistency.plans import Plan, Scope, Sorting
from storekeeper.consistency.repairing import Repairing, refuse_beyond_brake
from storekeeper.host import clock, space
from storekeeper.outcomes import Outcome, Problem, Refused, Severity, Unknown
from storekeeper.restore.journal import journals, refuse_unfinished
from storekeeper.restore.pausing import services_stopped_for, stopped_for
from storekeeper.sets.context import Opened
from storekeeper.sets.scratch import scratch_directory
from storekeeper.verbs.check import CheckRequest, chosen, looked, remember
from storekeeper.verbs.report import Report

_OPEN = {
    None: "was not begun",
    "applying": "was begun",
    "laid": "was begun",
    "applied": "is applied",
    "undoing": "is being undone",
    "undone": "is undone",
}


def plan(context: Opened, scope: Scope) -> Report:
    """Look at the rules, and write down what may be removed of what is found: orphans that were first seen a grace ago, and what is left of
    documents that failed that long ago. What is missing goes onto a list for the application. Nothing is removed.

    Raises Unknown where a place could not be read: then nothing is planned.
    """
    rules = chosen(context, scope.rule)
    request = CheckRequest(scope.rule, scope.document, scope.owner)
    now, sorting, authority, digests = clock.now(), Sorting(), dict[str, int](), dict[str, str]()
    with plans.making(context.state) as making:
        with scratch_directory(context) as work:
            checking = Checking(context.stores, context.state, work, context.progress)
            for name, rule in rules.items():
                look = looked(context, checking, name, rule)
                refuse_unread(context, name, look, "nothing is planned")
                if request.is_whole:
                    remember(context, checking, name, rule, look)
                immovable = frozenset(place.name for place in replicas_of(rule) if not can_mend(rule, place))
                wanted, again = (filter(request.wants, look.findings) for _ in range(2))
                making.add(sorting.removed(name, wanted, rule, now, scope, immovable), sorting.reingested(name, again))
                authority[name] = look.tally.documents if look.tally else 0
                digests[name] = rule.digest
        facts = {
            "stack": context.stack.stack,
            "host": context.host,
            "created": clock.rfc3339(now),
            "scope": scope.to_json(),
            "rules": digests,
            "authority": authority,
            "removals": dict(sorting.removals),
            "documents": sorting.documents,
            "reingest": sorting.reingest,
            "waiting": sorting.waiting,
            "by_hand": sorting.by_hand,
            "samples": sorting.samples,
            "space": {"needed": _space_needed(context, sorting.removals), "free": space.free_bytes(context.state)},
        }
        made = making.publish(facts, now)
    return Report({"plan": _described(made)}, _advice(context, made))


def repair_declared(context: Opened, checked: Report) -> Report:
    """After a check: remove what the rules declare as `automatic`, within grace and brake, with everything kept for undo.

    Where a rule could not be read, or nothing declared was found, nothing is planned. Beyond the brake nothing is removed, and a warning
    says so. Raises Refused where no rule declares anything.
    """
    if not any(rule.automatic for rule in context.stack.consistency.values()):
        raise Refused(
            "no rule of the stack declares `automatic`, so nothing may be removed without being asked",
            next=f"storekeeper repair plan {context.stack.stack}",
        )
    found = {name: told["counts"] for name, told in checked.result["rules"].items() if context.stack.consistency[name].automatic}
    if not any(found[name][kind] for name in found for kind in context.stack.consistency[name].automatic):
        return Report({**checked.result, "repaired": None}, checked.problems, checked.outcome)
    try:
        made = plans.opened(context.state, plan(context, Scope(declared=True)).result["plan"]["id"])
        if not made.removals:
            made.remove()
            return Report({**checked.result, "repaired": None}, checked.problems, checked.outcome)
        done = apply(context, made.id, None)
    except (Refused, Unknown) as error:
        said = Problem(f"nothing was repaired: {error.message}", Severity.WARNING, error.store, error.next)
        return Report({**checked.result, "repaired": None}, [*checked.problems, said], checked.outcome)
    removed = ", ".join(f"{count:,} from {name}" for name, count in done.result["removed"].items()) or "nothing"
    said = Problem(f"removed by itself: {removed}, all of it kept", Severity.INFO, next=done.result["undo"])
    return Report({**checked.result, "repaired": done.result}, [*checked.problems, said, *done.problems], checked.outcome)


def show(context: Opened, name: str) -> Report:
    """What a plan would remove, as it was written down."""
    return Report({"plan": _described(plans.opened(context.state, name))})


def apply(context: Opened, name: str, limit: int | None) -> Report:
    """Remove what a plan says, all of it kept. Begun and interrupted, it goes on.

    Raises Refused for a plan of other rules, one that was undone, and one beyond the brake; nothing is removed then.
    """
    made = ready(context, name)
    if (state := made.state()) in ("applied", "undoing", "undone"):
        raise Refused(f"the plan {name} {_OPEN[state]}", next=f"storekeeper repair plan {context.stack.stack}")
    if made.restores is not None:
        return _finished(context, made)
    refuse_beyond_brake(made, context.stack.consistency, limit)
    space.check({context.state: int(made.document["space"]["needed"])}, purpose="what the repair keeps", next="df -h")
    repairing = Repairing(made, context.stack.consistency, context.stores, context.progress)
    try:
        with services_stopped_for(context, made.removals, made.id):
            repairing.apply()
    except Exception as error:
        error.add_note(f"what was removed by then is kept: storekeeper repair undo {context.stack.stack} {name}")
        raise
    done = repairing.done
    skipped = [Problem(f"{len(done.skipped) + done.left_out:,} were skipped, since they changed after the plan was made", Severity.WARNING)]
    result = {**_told(made, done.removed, {}, done.skipped, done.left_out), "undo": f"storekeeper repair undo {context.stack.stack} {name}"}
    return Report(result, skipped if done.skipped else ())


def undo(context: Opened, name: str) -> Report:
    """Put back all that a plan has removed. It may be run again; what the application has made anew meanwhile is left as it is."""
    made = ready(context, name)
    if made.state() is None:
        raise Refused(f"the plan {name} was never applied: there is nothing to undo", next=None)
    if made.state() == "undone":
        said = Problem(f"the plan {name} was undone before: there is nothing to do", Severity.INFO)
        return Report({**_told(made, {}, {}, [], 0), "undo": None}, [said])
    if made.restores is not None:
        bringing = Bringing(made, context.stack.consistency, context.stores, context.progress)
        with services_stopped_for(context, bringing.stores, made.id):
            bringing.undo()
        return Report({**_told(made, {}, bringing.brought, [], 0), "undo": None}, bringing.problems)
    repairing = Repairing(made, context.stack.consistency, context.stores, context.progress)
    with services_stopped_for(context, made.removals, made.id):
        repairing.undo()
    done = repairing.done
    return Report({**_told(made, {}, done.undone, [], 0), "undo": None}, done.problems)


def _finished(context: Opened, made: Plan) -> Report:
    """A document that was being brought back out of a set when its run was interrupted."""
    bringing = Bringing(made, context.stack.consistency, context.stores, context.progress)
    with services_stopped_for(context, bringing.stores, made.id):
        bringing.apply()
    undo = f"storekeeper repair undo {context.stack.stack} {made.id}"
    return Report({**_told(made, bringing.removed, {}, [], 0), "undo": undo})


def refuse_unread(context: Opened, name: str, look: Look, therefore: str) -> None:
    """Raises Unknown where a look could not read everything."""
    if look.outcome is Outcome.UNKNOWN:
        said = next((problem.message for problem in look.problems if problem.severity is Severity.ERROR), f"{name}: not all could be read")
        raise Unknown(f"{said}: {therefore}", next=f"storekeeper check {context.stack.stack}")


def ready(context: Opened, name: str) -> Plan:
    """A plan that is as it was written, of this stack as it is declared now, with no restore under way."""
    refuse_unfinished(journals(context.state))
    made = plans.opened(context.state, name)
    for rule, digest in made.document["rules"].items():
        now = context.stack.consistency.get(rule)
        if now is None or now.digest != digest:
            raise Refused(
                f"the rule {rule} is not what it was when the plan was made: nothing was changed",
                next=f"storekeeper repair plan {context.stack.stack}",
            )
    return made


def _space_needed(context: Opened, removals: Mapping[str, int]) -> int:
    """What is kept of databases goes into the state directory, by a store's average; files stay where they are."""
    needed = 0
    for name, count in removals.items():
        store = context.stores[name]
        if store.kind != "files":
            found = store.inspect()
            needed += 2 * count * found.bytes // max(1, max(found.counts.values(), default=1))
    return needed


def _described(made: Plan) -> dict[str, Any]:
    told = {key: made.document[key] for key in ("removals", "documents", "reingest", "waiting", "by_hand", "samples", "space")}
    restores = None if made.restores is None else {key: made.restores[key] for key in ("set", "document", "rule")}
    return {"id": made.id, "path": str(made.path), "reingest_file": str(made.reingest_file), "restores": restores, **told}


def _advice(context: Opened, made: Plan) -> Sequence[Problem]:
    stack, advice = context.stack.stack, []
    if made.removals:
        said = f"{sum(made.removals.values()):,} entries of {sum(made.documents.values()):,} documents would be removed"
        advice.append(Problem(said, Severity.INFO, next=f"storekeeper repair apply {stack} {made.id}"))
        advice += _stopped(context, made)
    if made.document["waiting"]:
        said = f"{made.document['waiting']:,} were seen for the first time less than the grace ago, and wait"
        advice.append(Problem(said, Severity.INFO))
    if made.document["reingest"]:
        said = f"{made.document['reingest']:,} documents have to be taken in again by the application"
        following = f"storekeeper repair reingest {stack} {made.id}" if _can_reingest(context, made) else f"cat {made.reingest_file}"
        advice.append(Problem(said, Severity.INFO, next=following))
    if made.document["by_hand"]:
        said = f"{made.document['by_hand']:,} are for a person to look into: no repair can tell what is right"
        advice.append(Problem(said, Severity.INFO, next=f"storekeeper check {stack}"))
    return advice


def _stopped(context: Opened, made: Plan) -> Iterator[Problem]:
    """What would be stopped; the plan is written down by now, whether or not that can be told."""
    try:
        if services := stopped_for(context, made.removals):
            yield Problem(f"stopped meanwhile: {', '.join(services)}", Severity.INFO)
    except Unknown as error:
        said = f"which services would be stopped cannot be told: {error.message}"
        yield Problem(said, Severity.WARNING, error.store, error.next)


def _can_reingest(context: Opened, made: Plan) -> bool:
    """Whether a rule of the plan declares a command that takes documents in again."""
    return any(rule.reingest is not None and any(made.missing(name)) for name, rule in context.stack.consistency.items())


def _told(
    made: Plan, removed: Mapping[str, int], undone: Mapping[str, int], skipped: Sequence[Mapping[str, str]], left_out: int
) -> dict[str, Any]:
    return {
        "plan": made.id,
        "removed": dict(removed),
        "undone": dict(undone),
        "skipped": list(skipped),
        "left_out": left_out,
    }
