"""The same collections with nothing in them: their rows of the catalogue, and none of any document.

A collection without documents has no directory of vectors yet and no place in the queue; so has one that is emptied, and Chroma makes
both when the first document comes (held against the real one in tests/stores/test_chroma_emptied.py).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from storekeeper.outcomes import Refused
from storekeeper.stores import databases, emptied
from storekeeper.stores.chroma import catalogue, checking, content, layout
from storekeeper.stores.chroma.dumping import CONTENT, FILE, LISTING, newer, root_of
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.protocol import Dumped
from storekeeper.stores.record import EMPTIED

_SCHEMA = {
    "acquire_write",
    "collection_metadata",
    "collections",
    "databases",
    "embeddings_queue_config",
    "maintenance_log",
    "migrations",
    "segment_metadata",
    "segments",
    "tenants",
}
_DOCUMENTS = {"embedding_metadata", "embedding_metadata_array", "embeddings", "embeddings_queue", "max_seq_id"}
_FULL_TEXT = "embedding_fulltext_search"
_OF_SQLITE = "sqlite_"


def empty(live: Path, source: Path, into: StoreFolder, work: Path, *, sealed: bool) -> Dumped:
    """Write what is left of the directory `source` as artefacts; `live` says owner and modes. Raises Refused for a newer Chroma, whose
    tables may hold more than is known here.
    """
    made = work / layout.DATABASE
    with databases.explained(source / layout.DATABASE), catalogue.open_catalogue(source, sealed=sealed) as found:
        emptied.make(found.connection, made, _kept(found))
    attributes = os.stat(live / layout.DATABASE if (live / layout.DATABASE).exists() else source)
    entry = {
        "path": layout.DATABASE,
        "type": FILE,
        "mode": stat.S_IMODE(attributes.st_mode) & 0o666,
        "uid": attributes.st_uid,
        "gid": attributes.st_gid,
        "mtime_ns": os.stat(made).st_mtime_ns,
    }
    with into.tree(LISTING, CONTENT) as tree:
        tree.add_copied(entry, made)
    counts = checking.check(into.path / CONTENT)
    with catalogue.open_catalogue(into.path / CONTENT, sealed=True) as written:
        migrations = written.migrations()
    digest = content.digest_of_listing(into.path / LISTING)
    details = {"migrations": migrations, "root": root_of(live)}
    return Dumped(EMPTIED, counts, {content.DIGEST: digest}, details, newer(migrations))


def _kept(found: catalogue.Catalogue) -> list[str]:
    """The tables that are the schema. Raises Refused for one of which that is not known."""
    names = {str(name) for (name,) in found.connection.execute("select name from sqlite_master where type = 'table'")}
    strange = {name for name in names - _SCHEMA - _DOCUMENTS if not name.startswith((_FULL_TEXT, _OF_SQLITE))}
    if strange:
        raise Refused(
            f"{layout.DATABASE} has a table {min(strange)}, of which chromadb {catalogue.KNOWN_VERSION} knows nothing:"
            " what in it are documents cannot be told",
            next="remove the collections with the application's own chromadb",
        )
    return sorted(names & _SCHEMA)
