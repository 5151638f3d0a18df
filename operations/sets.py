"""Take, check, prove, restore and remove the backup sets of a host's stacks.

Each operation is at most one fact, one decision and one verb of the host program. Exit codes 0 and 4 are success; a refusal or a
failure fails its own host and leaves the others alone. A value that could be read as an option raises OperationValueError.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, OperationValueError, State, operation
from pyinfra.api.facts import get_fact
from pyinfra.facts.server import Hostname

from .facts.sets import Sets, ask
from .page import spoken_size
from .passage import taken
from .program import JobVerb, Verb, one_line, refused, say, tell, unread, value

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
Commands = Generator[Verb | JobVerb | FunctionCommand, None, None]
_asking = threading.Lock()  # of one terminal
_USABLE = ("verified", "proven")
_COLOURS = {"proven": "green", "verified": "green", "incomplete": "yellow", "unprovable": "yellow"}


@operation(is_idempotent=False)
def backup(stack: str) -> Commands:
    """
    Take, verify and publish one backup set of a stack, whatever sets there are.

    + stack: the stack's name

    **Example:**

    .. code:: python

        sets.backup(name="Back up maestro", stack="maestro")
    """
    yield JobVerb("backup", value("stack", stack))


@operation()
def recent(stack: str, within: str = "26h", proven: bool = False) -> Commands:
    """
    Take a backup set only where the stack has no usable one that is young enough. Where that cannot be told, the host fails.

    A set's age is counted by the host's own clock; one that is dated after now is not young.

    + stack: the stack's name
    + within: the greatest age, such as ``30m``, ``26h`` or ``7d``
    + proven: whether only a set that was restored into a scratch place counts

    **Example:**

    .. code:: python

        sets.recent(name="Have a backup of today", stack="maestro", within="26h")
    """
    limit = span(within)
    listed = ask(host, Sets, stack=stack)
    if listed is None:
        yield unread(f"which sets {stack} has")
        return
    newest = _newest(listed, ("proven",) if proven else _USABLE)
    if newest is not None and timedelta() <= (age := _age(listed, newest["time"])) <= limit:
        host.noop(f"newest {newest['state']} set {newest['id']} of {stack} is {_spoken(age)} old, within {within}")
        return
    yield JobVerb("backup", stack)
    if proven:
        yield JobVerb("prove", stack)


@operation(is_idempotent=False)
def show(stack: str) -> Generator[FunctionCommand, None, None]:
    """
    Print the sets of a stack, oldest first, a line each.

    + stack: the stack's name

    **Example:**

    .. code:: python

        sets.show(name="Sets of maestro", stack="maestro")
    """
    yield FunctionCommand(_show, (value("stack", stack),), {})


@operation(is_idempotent=False)
def verify(stack: str, set: str | None = None, all: bool = False) -> Commands:
    """
    Read a set back and decode it in full.

    + stack: the stack's name
    + set: a set's id, time or start of an id; the newest set of any state when not given
    + all: every set of the stack

    **Example:**

    .. code:: python

        sets.verify(name="Verify all sets", stack="maestro", all=True)
    """
    if set is not None and all:
        raise OperationValueError("give a set or all, not both")
    yield JobVerb("verify", value("stack", stack), *_named(set), *(["--all"] if all else []))


@operation()
def prove(stack: str, set: str | None = None, within: str | None = None) -> Commands:
    """
    Restore a set into a scratch place and compare what came out with what went in.

    + stack: the stack's name
    + set: a set's id, time or start of an id; the newest one when not given
    + within: do nothing where the newest proven set was proven no longer ago than this

    **Example:**

    .. code:: python

        sets.prove(name="Prove the newest set each week", stack="maestro", within="7d")
    """
    if set is not None and within is not None:
        raise OperationValueError("give a set or within, not both")
    if within is not None:
        limit = span(within)
        listed = ask(host, Sets, stack=stack)
        if listed is None:
            yield unread(f"which sets {stack} has")
            return
        newest = _newest(listed, ("proven",))
        if newest is not None and timedelta() <= (age := _age(listed, newest["proven_at"])) <= limit:
            host.noop(f"set {newest['id']} of {stack} was proven {_spoken(age)} ago, within {within}")
            return
    yield JobVerb("prove", value("stack", stack), *_named(set))


@operation(is_idempotent=False)
def restore(
    stack: str,
    set: str | None = None,
    back: bool = False,
    only: Sequence[str] = (),
    nobody_uses: Sequence[str] = (),
    no_owners: Sequence[str] = (),
    accept_unreadable: Sequence[str] = (),
    stage_dir: str | None = None,
    plan: bool = False,
    confirm: str | None = None,
    source: str | None = None,
    document: str | None = None,
    rule: str | None = None,
) -> Commands:
    """
    Put all stores of a stack back to a set, or none; or one document out of it; or return from the last restore.

    + stack: the stack's name
    + set: ``latest``, a set's id, time or start of an id
    + back: return to what was live before the last restore
    + only: the stores to restore, all when empty
    + nobody_uses: stores whose files no other program has open, where the host cannot see that by itself
    + no_owners: stores to restore without the owners of their files
    + accept_unreadable: stores that cannot be read, of which a raw copy is kept instead of a safety set
    + stage_dir: where to stage instead of beside the live data
    + plan: only say what would happen
    + confirm: ``STACK@HOST``, needed for everything but a plan; where it is left out, the plan is shown and it is asked for on the terminal
    + source: another host of the inventory, whose set is brought here first; its newest usable one when no set is given
    + document: only the document with this id, in all places of its rule
    + rule: the rule that the document is one of, where several know its id

    **Example:**

    .. code:: python

        sets.restore(name="Put maestro back", stack="maestro", set="latest", confirm="maestro@prod-ai-1")
    """
    wanted = (only, nobody_uses, no_owners, accept_unreadable, stage_dir)
    one = (document, rule)
    restore_words(stack, set, back, *wanted, plan, confirm, source, *one)
    if source is not None:
        if confirm is not None and (name := get_fact(host.state, host, Hostname, apply_failed_hosts=False)) != confirm.rpartition("@")[2]:
            yield refused(f"confirm names {confirm}, this is {stack}@{name}: no set was brought here, and nothing was changed")
            return
        arrived: dict[str, str] = {}
        yield taken(stack, source, set, arrived)
        set = arrived["id"]  # noqa: A001 what it is called here
    if not plan and confirm is None:
        shown = Verb("restore", value("stack", stack), *restore_words(stack, set, back, *wanted, True, None, None, *one))
        yield shown
        if set is not None:
            set = shown.document["result"]["plan"]["set"]  # noqa: A001 what was shown is what is done, whatever is the latest by then
        typed: list[str] = []
        yield FunctionCommand(_ask, (stack, typed), {})
        confirm = typed[0]
    words = restore_words(stack, set, back, *wanted, plan, confirm, None, *one)
    yield (Verb if plan else JobVerb)("restore", value("stack", stack), *words)


@operation(is_idempotent=False)
def reset(
    stack: str,
    nobody_uses: Sequence[str] = (),
    no_owners: Sequence[str] = (),
    accept_unreadable: Sequence[str] = (),
    confirm: str | None = None,
) -> Commands:
    """
    Empty all stores of a stack together, or none of them; the schema stays, and ``restore(back=True)`` returns.

    + stack: the stack's name
    + nobody_uses: stores whose files no other program has open, where the host cannot see that by itself
    + no_owners: stores to empty without the owners of their files
    + accept_unreadable: stores that cannot be read, of which a raw copy is kept instead of a safety set
    + confirm: ``STACK@HOST``; where it is left out, only the plan is shown

    **Example:**

    .. code:: python

        sets.reset(name="Empty maestro", stack="maestro", confirm="maestro@staging-1")
    """
    words = reset_words(stack, nobody_uses, no_owners, accept_unreadable, confirm)
    yield (Verb if confirm is None else JobVerb)("reset", value("stack", stack), *words)


@operation()
def prune(stack: str, dry_run: bool = False, confirm: str | None = None) -> Commands:
    """
    Remove the sets that the stack's retention keeps no longer. Only verified sets count, and the newest survivor is read first.

    + stack: the stack's name
    + dry_run: only say which sets would go
    + confirm: ``STACK@HOST``, needed where more than half of the sets would go

    **Example:**

    .. code:: python

        sets.prune(name="Remove old sets", stack="maestro")
    """
    words = ["--dry-run"] if dry_run else ["--confirm", value("confirm", confirm)] if confirm is not None else []
    yield (Verb if dry_run else JobVerb)("prune", value("stack", stack), *words)


def restore_words(
    stack: str,
    set: str | None,
    back: bool,
    only: Sequence[str],
    nobody_uses: Sequence[str],
    no_owners: Sequence[str],
    accept_unreadable: Sequence[str],
    stage_dir: str | None,
    plan: bool,
    confirm: str | None,
    source: str | None = None,
    document: str | None = None,
    rule: str | None = None,
) -> list[str]:
    """What is typed after `restore STACK`. Raises OperationValueError for a contradiction and for a missing confirmation."""
    if source is not None and back:
        raise OperationValueError("what was live before is on this host: back=True takes no source")
    if source is not None and set is None:
        set = "latest"  # noqa: A001 of the source
    if (set is None) == (not back):
        raise OperationValueError("give either a set or back=True")
    if document is not None and (back or only or accept_unreadable or stage_dir is not None):
        raise OperationValueError("one document comes out of a set, without only, stage_dir and accept_unreadable")
    if rule is not None and document is None:
        raise OperationValueError("rule is said with document")
    if not plan and confirm is None and not sys.stdin.isatty():
        raise OperationValueError(f"a restore changes live data: look at the plan, then pass confirm='{stack}@HOST'")
    if plan and confirm is not None:
        raise OperationValueError("a plan changes nothing and takes no confirm")
    words = ["--back"] if back else _named(set)
    words += _naming({"--only": only, "--nobody-uses": nobody_uses, "--no-owners": no_owners, "--accept-unreadable": accept_unreadable})
    words += ["--stage-dir", value("stage_dir", stage_dir)] if stage_dir is not None else []
    words += ["--document", value("document", document)] if document is not None else []
    words += ["--rule", value("rule", rule)] if rule is not None else []
    confirmed = [] if confirm is None else ["--confirm", value("confirm", confirm)]
    return [*words, "--plan"] if plan else [*words, *confirmed]


def reset_words(
    stack: str, nobody_uses: Sequence[str], no_owners: Sequence[str], accept_unreadable: Sequence[str], confirm: str | None
) -> list[str]:
    """What is typed after `reset STACK`: a plan unless it is confirmed. Raises OperationValueError for what cannot be meant."""
    value("stack", stack)
    words = _naming({"--nobody-uses": nobody_uses, "--no-owners": no_owners, "--accept-unreadable": accept_unreadable})
    return [*words, "--plan"] if confirm is None else [*words, "--confirm", value("confirm", confirm)]


def _naming(named: Mapping[str, Sequence[str]]) -> list[str]:
    """Options that each name stores."""
    for option, stores in named.items():
        if isinstance(stores, str):
            raise OperationValueError(f"{option} takes a list of stores, found the text {stores!r}")
    return [word for option, stores in named.items() for store in stores for word in (option, value(option, store))]


def _ask(state: State, host: Host, stack: str, typed: list[str]) -> bool:
    """Have the stack and the host's own name typed on this terminal, one host at a time. The host compares."""
    with _asking:
        answer = input(f"\nThis replaces live data of {stack} on {host.name}. Type {stack}@ and the host's own name to go on: ").strip()
    if not answer:
        return say(state, host, "nothing was typed: nothing was changed")
    typed.append(answer)
    return True


def span(text: str) -> timedelta:
    """A length of time. Raises OperationValueError for anything but a number and one of m, h, d, w."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text) if isinstance(text, str) else None
    if not found:
        raise OperationValueError(f"expected a duration such as 30m, 26h or 7d, found {text!r}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _show(state: State, host: Host, stack: str) -> bool:  # noqa: ARG001 pyinfra looks for both names
    listed = ask(host, Sets, stack=stack)
    if listed is None:
        return False
    for each in listed["result"]["sets"]:
        proof = f"proven {_spoken(_age(listed, each['proven_at']))} ago" if each["proven_at"] else "never proven"
        words = [each["id"], each["state"], spoken_size(each["bytes"]), proof, *(["pinned"] if each["pinned"] else [])]
        host.log_styled(one_line("  ".join(words)), fg=_COLOURS.get(each["state"], "red"), log_func=logger.info)
    tell(host, listed)
    return True


def _named(set: str | None) -> list[str]:
    return [] if set is None else [value("set", set)]


def _newest(listed: dict[str, Any], states: Sequence[str]) -> dict[str, Any] | None:
    """The newest set by sequence, which is the order that counts, of those in one of the states."""
    found: list[dict[str, Any]] = [each for each in listed["result"]["sets"] if each["state"] in states]
    return found[-1] if found else None


def _age(listed: dict[str, Any], moment: str) -> timedelta:
    """How long ago something was when the host answered, by the host's own clock."""
    return datetime.fromisoformat(listed["started"]) - datetime.fromisoformat(moment)


def _spoken(age: timedelta) -> str:
    minutes = int(age.total_seconds()) // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
