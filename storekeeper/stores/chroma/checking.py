"""Whether a Chroma directory would restore: SQLite's own check, every index file with the size it must have, no document without
a vector.

What only Chroma can tell, that it opens and answers every document as it stands in the files, is `proof.py`'s.
"""

from __future__ import annotations

import threading
from pathlib import Path

from storekeeper.host import load
from storekeeper.outcomes import Failed
from storekeeper.stores import databases
from storekeeper.stores.chroma import index, layout
from storekeeper.stores.chroma.catalogue import Catalogue, Collection, database_of, open_catalogue
from storekeeper.stores.chroma.rows import CollectionRows, vector_of

_SHOWN = 3  # of SQLite's complaints


def check(directory: Path) -> dict[str, int]:
    """All of it. Returns how many documents each collection has; raises Failed on the first thing that Chroma could not read, or
    would read wrongly."""
    database = DatabaseCheck(directory)
    try:
        counts = check_indexes(directory)
        database.result()
    finally:
        database.stop()
    return counts


def check_indexes(directory: Path) -> dict[str, int]:
    """All but SQLite's own check.

    Vectors are counted, not looked up: a document without one hides behind a vector without a document until the set is proven.
    """
    counts = {}
    with open_catalogue(directory, sealed=True) as catalogue:
        for collection in catalogue.collections():
            counts[collection.key] = catalogue.count(collection)
            if _count_vectors(directory, catalogue, collection) < counts[collection.key]:
                _name_without_vector(catalogue, collection)
    return counts


class DatabaseCheck:
    """`pragma integrity_check`, which also looks at the indexes, in a thread beside the caller: SQLite lets other threads run.

    It reads an open file that nobody changes, so it may be moved meanwhile. The file is not mapped: that saved no processor time that
    could be measured, and made the program look as large as the file.
    The thread never keeps the program from ending.
    """

    def __init__(self, directory: Path) -> None:
        self._database = database = database_of(directory)
        self._error: BaseException | None = None
        with databases.explained(database):
            self._connection = databases.open_sealed(database)
            self._connection.execute("select count(*) from sqlite_master").fetchone()  # it is opened by its name, and now
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> None:
        """Wait for the end, and close the file. Raises Failed when SQLite complains."""
        self._thread.join()
        self._connection.close()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Give it up. Safe to repeat, and once it has ended."""
        while self._thread.is_alive():
            self._connection.interrupt()
            self._thread.join(0.05)
        self._connection.close()

    def _run(self) -> None:
        load.lower()  # it may begin while the caller still has a lock to take
        try:
            with databases.explained(self._database):
                said = [str(row[0]) for row in self._connection.execute(f"pragma integrity_check({_SHOWN})")]
            if said != ["ok"]:
                raise Failed(f"{layout.DATABASE} is damaged: {'; '.join(' '.join(each.split()) for each in said)}")
        except BaseException as error:  # noqa: BLE001 - told by `result`
            self._error = error


def _count_vectors(directory: Path, catalogue: Catalogue, collection: Collection) -> int:
    """After the queue, and after all index files were looked at."""
    queued = catalogue.queued_vectors(collection)
    count = sum(queued.values())
    segment = collection.vectors
    if segment is None or segment.applied == 0:
        return count  # all of its vectors are in the queue, and the queue is in SQLite
    folder = directory / segment.id
    if not folder.is_dir():
        raise Failed(f"collection {collection.key}: the directory of its vectors, {segment.id}, is missing")
    try:
        index.check_sizes(folder)
        index.check_dimension(folder, collection.dimension)
        return count + index.count_vectors(folder, queued)
    except index.Damaged as error:
        raise Failed(f"collection {collection.key}: {segment.id}: {error}") from error


def _name_without_vector(catalogue: Catalogue, collection: Collection) -> None:
    """Raises Failed for the first document that has none."""
    with CollectionRows(catalogue, collection) as rows:
        for row in rows:
            vector_of(row, collection)
