"""A look inside a Chroma directory: SQLite's own check, the index files, and every vector: is it there, of its collection's dimension,
and made of numbers."""

from __future__ import annotations

import math
from array import array
from pathlib import Path

from storekeeper.host import space
from storekeeper.outcomes import Failed, StorekeeperError, Unknown
from storekeeper.stores.chroma import index, layout
from storekeeper.stores.chroma.catalogue import Catalogue, Collection, open_catalogue
from storekeeper.stores.chroma.hold import ChromaHold
from storekeeper.stores.chroma.rows import CollectionRows, Row
from storekeeper.stores.examination import Examination

_FLOAT = 4  # bytes


def examine(directory: Path, work: Path) -> Examination:
    """Of a copy of one moment, made as a backup makes it: what is read while Chroma writes would look damaged."""
    found = Examination()
    hold = ChromaHold(directory, work)
    try:
        size = layout.size_of(layout.scan(directory))
        found.figures["bytes"] = size
        space.check({work: size}, purpose="a copy to look into", next="set `scratch:` in storekeeper.yml to a directory with room")
        hold.prepare()
        hold.pin()
        hold.copy()
        hold.release()
        hold.finish()
        _look_inside(hold, found)
    except (StorekeeperError, OSError, layout.NotRegular) as error:
        found.unknown.append(Unknown(f"{directory} cannot be looked into: {error}", next=getattr(error, "next", None)))
    finally:
        hold.close()
    return found


def _look_inside(hold: ChromaHold, found: Examination) -> None:
    check = hold.database_check()
    try:
        with open_catalogue(hold.directory, sealed=True) as catalogue:
            counts = {}
            for collection in catalogue.collections():
                counts[collection.key] = catalogue.count(collection)
                _look_at_collection(hold.directory, catalogue, collection, found)
            found.counts = counts
        check.result()
    except Failed as error:
        found.add("damage", error.message)
    finally:
        check.stop()


def _look_at_collection(directory: Path, catalogue: Catalogue, collection: Collection, found: Examination) -> None:
    try:
        segment = collection.vectors
        if segment is not None and segment.applied and (directory / segment.id).is_dir():
            index.check_sizes(directory / segment.id)
            index.check_dimension(directory / segment.id, collection.dimension)
    except index.Damaged as error:
        found.add("damage", f"collection {collection.key}: {error}", collection.key)
    try:
        with CollectionRows(catalogue, collection) as rows:
            for row in rows:
                if (wrong := _wrong(row, collection.dimension)) is not None:
                    found.add("vectors", f"collection {collection.key}: document {row.id!r} {wrong}", f"{collection.key}/{row.id}")
    except Failed as error:
        found.add("damage", error.message, collection.key)


def _wrong(row: Row, dimension: int | None) -> str | None:
    """What is wrong with a document's vector. A sum of float32 is finite exactly where each of them is: it cannot overflow."""
    if row.vector is None:
        return "has no vector"
    if len(row.vector) % _FLOAT or (dimension is not None and len(row.vector) != _FLOAT * dimension):
        return f"has a vector of {len(row.vector) // _FLOAT} numbers, {dimension} are declared"
    if not math.isfinite(sum(array("f", row.vector))):
        numbers = array("f", row.vector)
        place = next(number for number, value in enumerate(numbers) if not math.isfinite(value))
        return f"has a vector with {numbers[place]} in it, at place {place}"
    return None
