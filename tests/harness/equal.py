"""What all stores of the small Maestro hold, digested by the test itself: equal before and after means that nothing was changed."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.harness import chroma
from tests.harness.maestro import COLLECTIONS, FOLDERS, Maestro

_ALL = """
for name in arguments["collections"]:
    found = collection(name).get(include=["documents", "metadatas", "embeddings", "uris"])
    rows = zip(found["ids"], found["documents"], found["metadatas"], found["uris"], found["embeddings"], strict=True)
    say(sorted([[each, text, sorted(data.items()), uri, numpy.round(vector, 5).tolist()] for each, text, data, uri, vector in rows]))
"""


def digests(application: Maestro) -> dict[str, Any]:
    """By store. Rows with their rowid, files with contents, mode, owner and time, chunks as Chroma itself answers them."""
    return {
        "main": rows(application.main),
        "metadata": rows(application.metadata),
        "vectors": digest(chroma.execute(application.vectors, _ALL, collections=COLLECTIONS)),
        "papers": {folder: files(application.papers / folder) for folder in FOLDERS},
    }


def rows(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table' order by name")]
        return digest([(name, connection.execute(f"select rowid, * from {name} order by rowid").fetchall()) for name in tables])


def files(folder: Path) -> str:
    found = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found.append((str(path), status.st_mode, status.st_uid, status.st_mtime_ns, path.read_bytes().hex() if path.is_file() else ""))
    return digest(found)


def digest(found: object) -> str:
    return hashlib.sha256(json.dumps(found, default=str).encode()).hexdigest()
