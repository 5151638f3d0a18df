"""Proves a set by Chroma itself: every document of a scratch copy is asked for, and compared with our own reading of the set.

The scratch copy's bytes are hashed before Chroma opens it, which changes them. So a proof holds both: the bytes are those of the
set, and Chroma answers from them every id, text, URI, metadata and vector that they hold, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from storekeeper.host import durable
from storekeeper.outcomes import Failed, Unknown
from storekeeper.stores import rawcopy
from storekeeper.stores.chroma import catalogue, comparison, layout, speaking
from storekeeper.stores.chroma.catalogue import Catalogue, Collection, open_catalogue
from storekeeper.stores.chroma.content import content_of
from storekeeper.stores.chroma.rows import CollectionRows
from storekeeper.stores.protocol import Content

PATIENCE_S = 600.0  # for one answer: opening applies the queue, and a large index is read whole
_READER = Path(__file__).with_name("reader.py")


def prove(directory: Path, scratch: Path, python: Path | None, patience_s: float = PATIENCE_S) -> Content:
    """Copy a set's directory to scratch and read it back through Chroma; returns what the copy held before Chroma opened it.

    Raises Unknown when no interpreter here has a chromadb that can read it, Failed when Chroma answers anything else than the set
    holds, naming the collection and the document.
    """
    interpreter = speaking.interpreter(python, "the set could not be tried")
    copy = scratch / "directory"
    copy_directory(directory, copy)
    return read_back(directory, copy, interpreter, patience_s)


def read_back(directory: Path, copy: Path, interpreter: Path, patience_s: float = PATIENCE_S) -> Content:
    """What a copy of a set's directory held before Chroma opened it, once Chroma has answered all of it. Raises as `prove` does."""
    blank = copy.with_name("blank")
    durable.make_directory(blank)
    content = content_of(copy)
    with (
        open_catalogue(directory, sealed=True) as found,
        speaking.speaking(_READER, interpreter, patience_s, doing="while the copy was read") as reader,
    ):
        collections = found.collections()
        databases = sorted({(each.tenant, each.database) for each in collections})
        version = str(reader.ask({"blank": str(blank), "path": str(copy), "databases": databases})["version"])
        _refuse_older(found, blank, version)
        counts = {tuple(key): int(count) for *key, count in reader.ask({})["collections"]}
        _compare_names(collections, counts)
        for each in collections:
            with CollectionRows(found, each) as rows:
                comparison.compare(each, rows, counts[each.tenant, each.database, each.name], reader.ask)
    return content


def copy_directory(source: Path, target: Path) -> None:
    """A plain copy to throw away: private, not durable."""
    durable.make_directory(target)
    for entry in layout.scan(source).values():
        if entry.is_file:
            rawcopy.copy_file(source / entry.path, target / entry.path)
        else:
            os.mkdir(target / entry.path, durable.PRIVATE_DIRECTORY)


def _refuse_older(found: Catalogue, blank: Path, version: str) -> None:
    """A directory from a newer Chroma opens silently in an older one, which then reads it wrongly."""
    with open_catalogue(blank, sealed=False) as reader:
        known = reader.migrations()
    if catalogue.ahead_of(found.migrations(), known):
        said = f"the set has migrations {catalogue.spoken(found.migrations())}, chromadb {version} knows {catalogue.spoken(known)}"
        raise Unknown(f"the set cannot be tried here: {said}", next="declare `python:`, the interpreter of the application that wrote it")


def _compare_names(collections: Sequence[Collection], counts: dict[tuple[str, ...], int]) -> None:
    expected = {(each.tenant, each.database, each.name) for each in collections}
    for name in sorted(expected.symmetric_difference(counts)):
        raise Failed(
            f"collection {'/'.join(name)} is {'in the set, but Chroma does not list it' if name in expected else 'not in the set'}"
        )
