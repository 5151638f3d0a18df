"""Reads documents and embeddings through Chroma itself; started by its path under an interpreter that has chromadb (`proof.py`).

Opening a directory with a client changes it, and may crash the process: so only scratch copies, and never in the engine.
One JSON document a line: on standard input {"blank", "path", "databases"}, then {"tenant", "database", "collection", "ids"};
on standard output {"version", "collections"}, then {"rows"}. Needs Python 3.8 and nothing but chromadb and what it brings.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
from array import array
from typing import Any

_ANSWERS = os.dup(1)  # a library that prints must not be taken for an answer
os.dup2(2, 1)


def main() -> None:
    _refuse_network()
    try:
        import chromadb  # noqa: PLC0415 - where it is missing, that is an answer
        from chromadb.config import Settings  # noqa: PLC0415
    except ImportError as error:
        _say({"missing": str(error)})
        return
    order = json.loads(sys.stdin.readline())

    def client(path: str, tenant: str, database: str) -> Any:
        return chromadb.PersistentClient(path, settings=Settings(anonymized_telemetry=False), tenant=tenant, database=database)

    client(order["blank"], "default_tenant", "default_database")
    _say({"version": chromadb.__version__})
    sys.stdin.readline()  # the engine has compared what this chromadb made of nothing with what it is to open
    collections = {}
    for tenant, database in order["databases"]:
        for each in client(order["path"], tenant, database).list_collections():
            collections[tenant, database, each.name] = each
    _say({"collections": [[*key, each.count()] for key, each in collections.items()]})
    for line in sys.stdin:
        wanted = json.loads(line)
        found = collections[wanted["tenant"], wanted["database"], wanted["collection"]].get(
            ids=wanted["ids"], include=["documents", "metadatas", "uris", "embeddings"]
        )
        vectors = [base64.b64encode(array("f", each).tobytes()).decode() for each in found["embeddings"]]
        # No `strict`: the application's Python may be older than that word.
        _say({"rows": list(zip(found["ids"], found["documents"], found["uris"], found["metadatas"], vectors))})  # noqa: B905


def _refuse_network() -> None:
    """No library may reach out while it reads a copy of somebody's data."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo" or (event == "socket.connect" and arguments[0].family != socket.AF_UNIX):
            raise OSError("no network while a backup is read")

    sys.addaudithook(refuse)


def _say(document: dict[str, Any]) -> None:
    line = (json.dumps(document) + "\n").encode()
    while line:
        line = line[os.write(_ANSWERS, line) :]


if __name__ == "__main__":
    main()
