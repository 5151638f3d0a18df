"""Reading back what arrived in a database that a set was loaded into."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from storekeeper.outcomes import Failed
from storekeeper.stores.postgresql import catalogue, digests, extensions
from storekeeper.stores.postgresql.catalogue import named
from storekeeper.stores.postgresql.connection import Access, Connection, server_version
from storekeeper.stores.postgresql.digests import Multiset
from storekeeper.stores.postgresql.programs import major_of
from storekeeper.stores.postgresql.recorded import Recorded, Words
from storekeeper.stores.protocol import Content, Facts


def read_back(access: Access, name: str, recorded: Recorded) -> Content:
    """Counts and digests of a loaded database. Raises Failed when its sequences or its shape are not as recorded."""
    with access.session(name) as connection:
        connection.execute("begin isolation level repeatable read read only")
        _require_sequences(recorded, catalogue.sequences(connection))
        if major_of(server_version(connection)) == major_of(recorded.record.version):
            _require_shape(lambda: _with_extensions_here(connection, recorded), lambda: catalogue.shape(connection))
        return digests.content(connection, catalogue.tables(connection))


def fingerprint_of(access: Access, name: str) -> str:
    """The same text where rows and shape of a database are the same; where a sequence stands is not part of it."""
    with access.session(name) as connection:
        connection.execute("begin isolation level repeatable read read only")
        found = digests.content(connection, catalogue.tables(connection))
        return json.dumps([dict(found.digests), sorted(json.dumps(words) for words in catalogue.shape(connection))])


def _require_sequences(recorded: Recorded, found: Mapping[str, Facts]) -> None:
    for line in recorded.sequences():
        if line["before"] is None or line["after"] is None:
            continue  # made or dropped during the dump: which of the two the snapshot saw is not known
        there = found.get(line["name"])
        if there is None:
            raise Failed(f"sequence {line['name']} is missing after the restore")
        if not catalogue.sequence_is_between(line["before"], line["after"], there):
            raise Failed(
                f"sequence {line['name']} stands at {there['last']}, the set says {line['before']['last']} to {line['after']['last']}"
            )


def _with_extensions_here(connection: Connection, recorded: Recorded) -> Iterator[Words]:
    """The recorded shape, with the versions that its extensions were given here."""
    others = extensions.updated(connection, recorded.database["extensions"])
    for words in recorded.shape():
        yield [words[0], words[1], others[words[1]][1]] if words[0] == "extension" and words[1] in others else words


def _require_shape(wanted: Callable[[], Iterable[Words]], found: Callable[[], Iterable[Words]]) -> None:
    """Only where they differ are they held in memory, to say in what."""
    if _sum_of(wanted()) == _sum_of(found()):
        return
    wanted_set, found_set = {tuple(words) for words in wanted()}, {tuple(words) for words in found()}
    if wanted_set == found_set:
        return
    missing, surplus = sorted(wanted_set - found_set, key=str), sorted(found_set - wanted_set, key=str)
    said = [f"{_spoken(words)} is missing" for words in missing] + [f"{_spoken(words)} is too much" for words in surplus]
    raise Failed(f"the restored database is not shaped as the set says: {named(said)}")


def _sum_of(shape: Iterable[Words]) -> Multiset:
    found = Multiset()
    for words in shape:
        found.add(hashlib.sha256(json.dumps(words).encode()).digest())
    return found


def _spoken(words: tuple[str | None, ...]) -> str:
    return " ".join(word for word in words if word)
