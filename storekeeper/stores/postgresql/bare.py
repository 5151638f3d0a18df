"""A database in which nothing of an application's is left, and all that it was given from outside is: extensions with their own tables, the
schema `public` and those of extensions, with owners and rights, and the rights that new objects get by themselves.

The schemas that stay are named in the record of the database; the archive holds more, of which only what is chosen here is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from storekeeper.stores.postgresql.connection import Connection, rows
from storekeeper.stores.protocol import Facts

BARE = "bare_schemas"  # the key in the record: name and owner of each; a record without it is of a whole database
_PUBLIC = "public"
_KIND = r"^[0-9]+; [0-9]+ [0-9]+ "
_ROWS = re.compile(_KIND + "TABLE DATA ")  # of extensions: pg_dump was told to leave out those of all other tables
_OF_A_SCHEMA = re.compile(_KIND + "(?:SCHEMA - |(?:ACL|COMMENT|SECURITY LABEL) - SCHEMA )(?P<named>.*)$")
_RIGHTS_OF_NEW = re.compile(_KIND + "DEFAULT ACL (?P<schema>.*) DEFAULT PRIVILEGES FOR ")
_SCHEMAS = """
select n.nspname, pg_get_userbyid(n.nspowner) from pg_namespace n where n.nspname = any (%s)
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' order by 1"""


def schemas_outside(connection: Connection, recorded: Facts) -> list[tuple[str, str]]:
    """Name and owner of the schemas that are no application's."""
    wanted = [_PUBLIC, *(str(extension["schema"]) for extension in recorded["extensions"])]
    return [(str(name), str(owner)) for name, owner in rows(connection, _SCHEMAS, (wanted,))]


def shape_of_bare(recorded: Facts, shape: Iterable[list[str | None]]) -> Iterator[list[str | None]]:
    """What is left of the shape of a database."""
    kept = {name for name, _ in recorded[BARE]}
    return (words for words in shape if words[0] == "extension" or (words[0] in ("schema", "schema privilege") and words[1] in kept))


def entries_of_bare(recorded: Mapping[str, Any], listed: Sequence[str]) -> list[str]:
    """The lines of an archive's table of contents that are loaded; all of them for a whole database."""
    if BARE not in recorded:
        return list(listed)
    named = {" ".join(f"{name} {owner}".splitlines()) for name, owner in recorded[BARE]}
    new = {"-", *(name for name, _ in recorded[BARE])}
    return [line for line in listed if _ROWS.match(line) or _is_named(_OF_A_SCHEMA, line, named) or _is_named(_RIGHTS_OF_NEW, line, new)]


def _is_named(kind: re.Pattern[str], line: str, names: set[str]) -> bool:
    found = kind.match(line)
    return found is not None and found[1] in names
