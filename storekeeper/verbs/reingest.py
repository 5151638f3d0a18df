"""repair reingest: the application is asked, by its own declared command, to take in again what a plan says is missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from storekeeper.consistency import log, reingesting
from storekeeper.consistency.checking import Checking, Look
from storekeeper.consistency.plans import Plan
from storekeeper.consistency.reingesting import Became, Skipped
from storekeeper.consistency.repairing import refuse_so_many
from storekeeper.outcomes import Problem, Refused, Severity
from storekeeper.restore import commands
from storekeeper.runtimes.commands import refuse_unless_there
from storekeeper.sets.context import Opened
from storekeeper.sets.scratch import scratch_directory
from storekeeper.stack.rules import Rule
from storekeeper.verbs.check import looked, remember
from storekeeper.verbs.repair import ready, refuse_unread
from storekeeper.verbs.report import Report


def reingest(context: Opened, name: str, limit: int | None) -> Report:
    """Have the application take in again what of a plan is missing still, and say what a look afterwards finds of it.

    What has come back meanwhile is not asked for. Nothing of the stores is changed but by the command. Raises Refused where no rule of the
    plan declares one, where it could not be run, and beyond the brake; Unknown where a place could not be read; Failed where the command
    fails: then the application may have taken in some.
    """
    made = ready(context, name)
    rules = _declared(context, made)
    skipped, told, problems = Skipped(), dict[str, Became](), list[Problem]()
    with scratch_directory(context) as work:
        checking = Checking(context.stores, context.state, work, context.progress)
        asked = {each: _asked(context, checking, made, each, rule, work, skipped) for each, rule in rules.items()}
        counts = {each: count for each, (_, _, count) in asked.items()}
        said = "the plan has {} documents of {} taken in again"
        refuse_so_many(made, counts, context.stack.consistency, limit, said, made.reingest_file)
        for each, (reads, ids, count) in asked.items():
            if count:
                _ask(context, rules[each], reads)
            look = _look(context, checking, each, rules[each])
            told[each] = reingesting.became(ids, rules[each], context.stores, look.findings, work)
            remember(context, checking, each, rules[each], look)
            log.say(context.state, f"{each} {count} documents were asked for again, {told[each].whole} of them are whole: plan {made.id}")
            problems += _about(context, each, told[each])
    if skipped.count:
        problems.append(Problem(f"{skipped.count:,} were not asked for", Severity.INFO))
    result = {
        "plan": made.id,
        "rules": {each: found.to_json() for each, found in told.items()},
        "skipped": skipped.named,
        "left_out": skipped.left_out,
    }
    return Report(result, problems)


def _declared(context: Opened, made: Plan) -> Mapping[str, Rule]:
    """The rules of the plan that have something to take in again, and a command for it. Raises Refused where there is none."""
    stack = context.stack.stack
    if not made.document["reingest"]:
        raise Refused(f"nothing of the plan {made.id} has to be taken in again", next=f"storekeeper repair plan {stack}")
    rules = {name: rule for name, rule in context.stack.consistency.items() if next(made.missing(name), None) is not None}
    able = {name: rule for name, rule in rules.items() if rule.reingest is not None}
    if not able:
        said = f"no rule of the plan declares a command that takes documents in again: {', '.join(rules)}"
        raise Refused(said, next=f"declare `reingest:` in the rule, or hand {made.reingest_file} to the application")
    for rule in able.values():
        if rule.reingest is not None:
            refuse_unless_there(rule.reingest)
    return able


def _asked(context: Opened, checking: Checking, made: Plan, name: str, rule: Rule, work: Path, skipped: Skipped) -> tuple[Path, Path, int]:
    """What the command of a rule is to read, the ids in it, and how many: of what the plan says is missing, what is missing now."""
    look = _look(context, checking, name, rule)
    wanted = reingesting.still_missing(made.missing(name), look.findings, skipped)
    ids = rule.reingest is not None and rule.reingest.input == "ids"
    return reingesting.written(work / f"{name}.again", wanted, ids=ids, skipped=skipped)


def _look(context: Opened, checking: Checking, name: str, rule: Rule) -> Look:
    look = looked(context, checking, name, rule)
    refuse_unread(context, name, look, "whether anything is missing is not known")
    return look


def _ask(context: Opened, rule: Rule, reads: Path) -> None:
    if rule.reingest is None:
        return
    context.progress.step(None, f"running {rule.reingest.spoken}")
    with open(reads, "rb") as file:
        commands.carry_out(context, rule.reingest, stdin=file)


def _about(context: Opened, name: str, found: Became) -> list[Problem]:
    """What did not come back, which the command may not know."""
    following = f"storekeeper check {context.stack.stack} --rule {name}"
    said = {
        "are missing still, or not whole": found.missing,
        "have failed": found.failed,
        "are not known to the authority any more": found.gone,
    }
    problems = [Problem(f"{name}: {count:,} {what}", Severity.WARNING, next=following) for what, count in said.items() if count]
    if found.in_flight:
        problems.append(Problem(f"{name}: {found.in_flight:,} are being worked on", Severity.INFO, next=following))
    return problems
