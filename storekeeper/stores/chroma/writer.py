"""Reads, removes and adds chunks of an embedded directory through Chroma itself; started by its path under the application's interpreter.

One JSON document a line: on standard input {"path"}, then {"collection": [tenant, database, name], "do": "get" | "delete" | "add", ...};
on standard output one answer each. Needs Python 3.8 and nothing but chromadb and what it brings. Nobody else may have the directory open.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from array import array
from typing import Any

_ANSWERS = os.dup(1)  # a library that prints must not be taken for an answer
os.dup2(2, 1)


def main() -> None:
    try:
        import chromadb  # noqa: PLC0415 - where it is missing, that is an answer
        from chromadb.config import Settings  # noqa: PLC0415
    except ImportError as error:
        _say({"missing": str(error)})
        return
    path = json.loads(sys.stdin.readline())["path"]
    _say({"version": chromadb.__version__})
    opened: dict[Any, Any] = {}
    for line in sys.stdin:
        order = json.loads(line)
        tenant, database, name = key = tuple(order["collection"])
        if key not in opened:
            client = chromadb.PersistentClient(path, settings=Settings(anonymized_telemetry=False), tenant=tenant, database=database)
            opened[key] = client.get_collection(name, embedding_function=None)
        _say(_done(opened[key], order))


def _done(collection: Any, order: dict[str, Any]) -> dict[str, Any]:
    if order["do"] == "delete":
        collection.delete(ids=order["ids"])
        return {"done": len(order["ids"])}
    if order["do"] == "add":
        chunks = order["chunks"]
        collection.add(
            ids=[each["id"] for each in chunks],
            embeddings=[list(array("f", base64.b64decode(each["vector"]))) for each in chunks],
            documents=_or_none([each["document"] for each in chunks]),
            uris=_or_none([each["uri"] for each in chunks]),
            metadatas=_or_none([each["metadata"] for each in chunks]),
        )
        return {"done": len(chunks)}
    found = collection.get(ids=order["ids"], include=["documents", "metadatas", "uris", "embeddings"])
    vectors = [base64.b64encode(array("f", each).tobytes()).decode() for each in found["embeddings"]]
    # No `strict`: the application's Python may be older than that word.
    rows = zip(found["ids"], found["documents"], found["uris"], found["metadatas"], vectors)  # noqa: B905
    return {"chunks": [{"id": each[0], "document": each[1], "uri": each[2], "metadata": each[3], "vector": each[4]} for each in rows]}


def _or_none(values: list[Any]) -> list[Any] | None:
    return values if any(value is not None for value in values) else None


def _say(document: dict[str, Any]) -> None:
    line = (json.dumps(document) + "\n").encode()
    while line:
        line = line[os.write(_ANSWERS, line) :]


if __name__ == "__main__":
    main()
