"""Who else has a SQLite file open."""

from __future__ import annotations

import os
from pathlib import Path

from storekeeper.host.holders import Holder, holders_of
from storekeeper.outcomes import Failed, Unknown
from storekeeper.stores import databases


def others(live: Path) -> list[Holder]:
    """The other processes that have the file, its journal or its log open. Raises Unknown when that cannot be seen.

    Where a process cannot be looked at, only the kernel can tell, and it counts our own connections: have none open.
    """
    return holders_of([databases.beside(live, suffix) for suffix in ("", *databases.SUFFIXES)], except_pids={os.getpid()})


def may_be_used(live: Path) -> bool:
    """Whether another process has the file open; what cannot be seen counts as open."""
    try:
        return bool(others(live))
    except Unknown:
        return True


def refuse_others(live: Path, why: str, *, nobody_uses: bool) -> None:
    """Raises Failed when another process has the file open; also Unknown, unless a person said that nobody uses it."""
    try:
        found = others(live)
    except Unknown:
        if nobody_uses:
            return
        raise
    if found:
        raise Failed(f"{live} is open in {_spoken(found)}, and {why}: stop it first")


def refuse_newcomers(live: Path, why: str) -> None:
    """The same again under the lock, for who came since: only those that can be seen, as our own connection is open now."""
    refuse_others(live, why, nobody_uses=True)


def spoken_others(live: Path) -> str:
    """For a sentence that says why something could not be had."""
    try:
        found = others(live)
    except Unknown as error:
        return error.message
    return f"it is open in {_spoken(found)}" if found else "nobody else has it open now"


def _spoken(found: list[Holder]) -> str:
    programs = {holder.pid: holder.program for holder in found}
    return ", ".join(f"{program} (pid {pid})" for pid, program in programs.items())
