"""As whom each entry of an archive is restored, so that functions of a set never have more rights than their owner.

While rows arrive the server runs what constraints, domains and generated columns call, with the rights of the session; a function
can take a role back (`reset role`) to that of whoever connected. So rows arrive in sessions that connected as the tables' owners.
What indexes and materialized views call is confined by the server itself to the rights of their owner (CREATE INDEX, manual).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from storekeeper.stores.postgresql.connection import Access
from storekeeper.stores.protocol import Facts

Become = Callable[[str], Access | None]  # a session that connects as this role; None where that is not possible

_KIND = r"^[0-9]+; [0-9]+ [0-9]+ "
_ROWS = re.compile(_KIND + "TABLE DATA ")
_CHECKS = re.compile(_KIND + "CHECK CONSTRAINT ")
_RIGHTS = re.compile(_KIND + "(ACL (?!- SCHEMA )|DEFAULT ACL )")  # given last: who lost the right to insert must insert first


@dataclass(frozen=True)
class Session:
    """One run of pg_restore: who connects, the entries, and the role that is taken on where it is another's."""

    access: Access
    entries: Sequence[str]
    role: str | None = None


def sessions(entries: Sequence[str], recorded: Sequence[Facts], owner: str, admin: Access, become: Become) -> Iterator[Session]:
    """The runs that restore these entries, in their order; `owner` is the database's."""
    owners = _owners(entries, recorded)
    if set(owners.values()) <= {owner}:
        access = admin if owner == admin.user else become(owner)
        yield Session(access, entries) if access is not None else Session(admin, entries, owner)
        return
    by_owner = _by_owner(entries, owners, recorded, admin, become)
    if by_owner is None:
        yield Session(admin, entries)
        return
    first = next((index for index, line in enumerate(entries) if _ROWS.match(line)), len(entries))
    apart = {line for lines in by_owner.values() for line in lines}
    yield Session(admin, [line for line in entries[:first] if line not in apart and not _RIGHTS.match(line)])
    for access, lines in by_owner.items():
        yield Session(access, [line for line in lines if _ROWS.match(line)])
    for access, lines in by_owner.items():
        yield Session(access, [line for line in lines if _CHECKS.match(line)])
    yield Session(
        admin, [line for line in entries[first:] if line not in apart] + [line for line in entries[:first] if _RIGHTS.match(line)]
    )


def beyond(entries: Sequence[str], recorded: Sequence[Facts], owner: str, admin: Access, become: Become) -> list[str]:
    """The roles whose functions may run with the administrator's rights, because nobody can connect as them."""
    owners = _owners(entries, recorded)
    if set(owners.values()) <= {owner}:
        return [] if owner == admin.user or become(owner) is not None else [owner]
    plain = {owners[line] for line in entries if _ROWS.match(line) or _CHECKS.match(line)}
    plain -= {name for name in plain if _is_trusted(name, recorded, admin)}
    return sorted(plain) if any(become(name) is None for name in plain) else []


def event_triggers(entries: Sequence[str]) -> list[str]:
    """Their names and owners. Only superusers make them, and what they call runs with the rights of whoever comes along."""
    return [line.partition(" EVENT TRIGGER - ")[2] for line in entries if " EVENT TRIGGER - " in line]


def _by_owner(
    entries: Sequence[str], owners: Mapping[str, str], recorded: Sequence[Facts], admin: Access, become: Become
) -> Mapping[Access, list[str]] | None:
    """Rows and checks by who must restore them; None when it is not possible to connect as one of the owners."""
    lines: dict[str, list[str]] = {}
    for line in entries:
        if _ROWS.match(line) or _CHECKS.match(line):
            lines.setdefault(owners[line], []).append(line)
    found: dict[Access, list[str]] = {}
    for name in lines.keys() - {name for name in lines if _is_trusted(name, recorded, admin)}:
        access = become(name)
        if access is None:
            return None
        found[access] = lines[name]
    return found


def _owners(entries: Sequence[str], recorded: Sequence[Facts]) -> dict[str, str]:
    """Who owns each entry: the last word of its line, which may hold spaces."""
    names = sorted((str(role["name"]) for role in recorded), key=len, reverse=True)
    return {line: next((name for name in names if line.endswith(f" {name}")), line.rpartition(" ")[2]) for line in entries}


def _is_trusted(name: str, recorded: Sequence[Facts], admin: Access) -> bool:
    """A superuser's functions may do everything where the set was taken, too."""
    return name == admin.user or any(role["name"] == name and role["superuser"] for role in recorded)
