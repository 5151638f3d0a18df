"""Whether a set's Chroma directory would restore: SQLite's own check, and every index file there with the size it must have.

What only Chroma can tell, that it opens and answers every embedding, is `proof.py`'s.
"""

from __future__ import annotations

from pathlib import Path

from storekeeper.outcomes import Failed
from storekeeper.stores import databases
from storekeeper.stores.chroma import index, layout
from storekeeper.stores.chroma.catalogue import Catalogue, open_catalogue

_SHOWN = 3  # of SQLite's complaints


def check(directory: Path) -> None:
    """Raises Failed on the first thing that Chroma could not read, or would read wrongly."""
    with open_catalogue(directory, sealed=True) as catalogue:
        check_database(catalogue, directory)
        for collection in catalogue.collections():
            segment = collection.vectors
            if segment is None or segment.applied == 0:
                continue  # its vectors are in the queue, and the queue is in SQLite
            folder = directory / segment.id
            if not folder.is_dir():
                raise Failed(f"collection {collection.key}: the directory of its vectors, {segment.id}, is missing")
            try:
                index.check_sizes(folder)
            except index.Damaged as error:
                raise Failed(f"collection {collection.key}: {segment.id}: {error}") from error


def check_database(catalogue: Catalogue, directory: Path) -> None:
    """`pragma integrity_check`, which also looks at the indexes."""
    with databases.explained(directory / layout.DATABASE):
        said = [str(row[0]) for row in catalogue.connection.execute(f"pragma integrity_check({_SHOWN})")]
    if said != ["ok"]:
        raise Failed(f"{layout.DATABASE} is damaged: {'; '.join(' '.join(each.split()) for each in said)}")
