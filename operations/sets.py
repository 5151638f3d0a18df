"""Take, check, prove, restore and remove the backup sets of a host's stacks.

Each operation is at most one fact, one decision and one verb of the host program. Exit codes 0 and 4 are success; a refusal or a
failure fails its own host and leaves the others alone.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from pyinfra import host
from pyinfra.api import OperationValueError, operation

from .facts.sets import Sets
from .program import Program, Verb

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@operation(is_idempotent=False)
def backup(stack: str) -> Generator[Verb, None, None]:
    """
    Take, verify and publish one backup set of a stack, whatever sets there are.

    + stack: the stack's name

    **Example:**

    .. code:: python

        sets.backup(name="Back up maestro", stack="maestro")
    """
    yield Verb("backup", stack)


@operation()
def recent(stack: str, within: str = "26h", proven: bool = False) -> Generator[Verb, None, None]:
    """
    Take a backup set only where the stack has no usable one that is young enough.

    + stack: the stack's name
    + within: the greatest age, such as ``30m``, ``26h`` or ``7d``
    + proven: whether only a set that was restored into a scratch place counts

    **Example:**

    .. code:: python

        sets.recent(name="Have a backup of today", stack="maestro", within="26h")
    """
    limit = _span(within)
    usable = _usable(stack, "proven" if proven else "verified")
    if usable is None:
        return
    newest = usable[-1] if usable else None
    age = datetime.now(UTC) - datetime.fromisoformat(newest["time"]) if newest else None
    if newest is not None and age is not None and age <= limit:
        host.noop(f"newest {newest['state']} set {newest['id']} is {_spoken(age)} old, within {within}")
        return
    yield Verb("backup", stack)
    if proven:
        yield Verb("prove", stack)


@operation(is_idempotent=False)
def verify(stack: str, set: str | None = None, all: bool = False) -> Generator[Verb, None, None]:
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
    yield Verb("verify", stack, *([set] if set else []), *(["--all"] if all else []))


@operation()
def prove(stack: str, set: str | None = None, within: str | None = None) -> Generator[Verb, None, None]:
    """
    Restore a set into a scratch place and compare what came out with what went in.

    + stack: the stack's name
    + set: a set's id, time or start of an id; the newest one when not given
    + within: do nothing where the newest set was proven no longer ago than this

    **Example:**

    .. code:: python

        sets.prove(name="Prove the newest set each week", stack="maestro", within="7d")
    """
    if within is not None:
        limit = _span(within)
        usable = _usable(stack, "proven")
        if usable is None:
            return
        proven = [each for each in usable if set in (None, each["id"])]
        if proven and (age := datetime.now(UTC) - datetime.fromisoformat(proven[-1]["proven_at"])) <= limit:
            host.noop(f"set {proven[-1]['id']} was proven {_spoken(age)} ago, within {within}")
            return
    yield Verb("prove", stack, *([set] if set else []))


@operation(is_idempotent=False)
def restore(
    stack: str,
    set: str | None = None,
    back: bool = False,
    only: Sequence[str] = (),
    nobody_uses: Sequence[str] = (),
    no_owners: Sequence[str] = (),
    plan: bool = False,
    confirm: str | None = None,
) -> Generator[Verb, None, None]:
    """
    Put all stores of a stack back to a set, or none; or return from the last restore.

    + stack: the stack's name
    + set: ``latest``, a set's id, time or start of an id
    + back: return to what was live before the last restore
    + only: the stores to restore, all when empty
    + nobody_uses: stores whose files no other program has open, where the host cannot see that by itself
    + no_owners: stores to restore without the owners of their files
    + plan: only say what would happen
    + confirm: ``STACK@HOST``, needed for everything but a plan

    **Example:**

    .. code:: python

        sets.restore(name="Put maestro back", stack="maestro", set="latest", confirm="maestro@prod-ai-1")
    """
    if (set is None) == (not back):
        raise OperationValueError("give either a set or back=True")
    if not plan and confirm is None:
        raise OperationValueError(f"a restore changes live data: pass confirm='{stack}@HOST'")
    words = ["--back"] if back else [str(set)]
    for option, stores in (("--only", only), ("--nobody-uses", nobody_uses), ("--no-owners", no_owners)):
        words += [word for store in stores for word in (option, store)]
    words += ["--plan"] if plan else ["--confirm", str(confirm)]
    yield Verb("restore", stack, *words)


@operation()
def prune(stack: str, dry_run: bool = False) -> Generator[Verb, None, None]:
    """
    Remove the sets that the stack's retention keeps no longer. Only verified sets count, and the newest survivor is read first.

    + stack: the stack's name
    + dry_run: only say which sets would go

    **Example:**

    .. code:: python

        sets.prune(name="Remove old sets", stack="maestro")
    """
    yield Verb("prune", stack, *(["--dry-run"] if dry_run else []))


def _usable(stack: str, state: str) -> list[dict[str, Any]] | None:
    """The usable sets, oldest first. None where they could not be read: pyinfra has failed that host already, and said why."""
    program = Program.of(host)
    found = cast("dict[str, Any] | None", host.get_fact(Sets, stack=stack, program=program.path, program_config=program.config))
    if found is None:
        return None
    wanted = ("proven",) if state == "proven" else ("verified", "proven")
    return [each for each in found["result"]["sets"] if each["state"] in wanted]


def _span(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text)
    if not found:
        raise OperationValueError(f"expected a duration such as 30m, 26h or 7d, found {text!r}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _spoken(age: timedelta) -> str:
    minutes = int(age.total_seconds()) // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
