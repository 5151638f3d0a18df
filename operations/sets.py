"""Take, check, prove, restore and remove the backup sets of a host's stacks.

Each operation is at most one fact, one decision and one verb of the host program. Exit codes 0 and 4 are success; a refusal or a
failure fails its own host and leaves the others alone. A value that could be read as an option raises OperationValueError.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from datetime import datetime, timedelta
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, OperationValueError, operation

from .facts.sets import Sets, ask
from .program import JobVerb, Verb, unread, value

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
Commands = Generator[Verb | JobVerb | FunctionCommand, None, None]
_USABLE = ("verified", "proven")


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
) -> Commands:
    """
    Put all stores of a stack back to a set, or none; or return from the last restore.

    + stack: the stack's name
    + set: ``latest``, a set's id, time or start of an id
    + back: return to what was live before the last restore
    + only: the stores to restore, all when empty
    + nobody_uses: stores whose files no other program has open, where the host cannot see that by itself
    + no_owners: stores to restore without the owners of their files
    + accept_unreadable: stores that cannot be read, of which a raw copy is kept instead of a safety set
    + stage_dir: where to stage instead of beside the live data
    + plan: only say what would happen
    + confirm: ``STACK@HOST``, needed for everything but a plan

    **Example:**

    .. code:: python

        sets.restore(name="Put maestro back", stack="maestro", set="latest", confirm="maestro@prod-ai-1")
    """
    words = restore_words(stack, set, back, only, nobody_uses, no_owners, accept_unreadable, stage_dir, plan, confirm)
    yield (Verb if plan else JobVerb)("restore", value("stack", stack), *words)


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
) -> list[str]:
    """What is typed after `restore STACK`. Raises OperationValueError for a contradiction and for a missing confirmation."""
    if (set is None) == (not back):
        raise OperationValueError("give either a set or back=True")
    if not plan and confirm is None:
        raise OperationValueError(f"a restore changes live data: look at the plan, then pass confirm='{stack}@HOST'")
    if plan and confirm is not None:
        raise OperationValueError("a plan changes nothing and takes no confirm")
    words = ["--back"] if back else _named(set)
    named = {"--only": only, "--nobody-uses": nobody_uses, "--no-owners": no_owners, "--accept-unreadable": accept_unreadable}
    for option, stores in named.items():
        if isinstance(stores, str):
            raise OperationValueError(f"{option} takes a list of stores, found the text {stores!r}")
        words += [word for store in stores for word in (option, value(option, store))]
    words += ["--stage-dir", value("stage_dir", stage_dir)] if stage_dir is not None else []
    return [*words, "--plan"] if plan else [*words, "--confirm", value("confirm", confirm)]


def span(text: str) -> timedelta:
    """A length of time. Raises OperationValueError for anything but a number and one of m, h, d, w."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text) if isinstance(text, str) else None
    if not found:
        raise OperationValueError(f"expected a duration such as 30m, 26h or 7d, found {text!r}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


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
