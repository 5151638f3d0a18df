"""What a running Chroma server says of itself, over its HTTP interface (version 2). Loopback or a private network: it has no passwords."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from storekeeper.host import clock
from storekeeper.outcomes import Failed
from storekeeper.stores.chroma.catalogue import Collection

PATIENCE_S = 10.0
START_PATIENCE_S = 60.0  # a server that has just been started opens its directory first
_PAUSE_S = 0.2
_LONGEST = 1 << 28  # a few hundred chunks with their vectors and texts
POST_PATIENCE_S = 600.0
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy of the caller's environment


class Server:
    """One Chroma server. Raises Failed when it does not answer in time, or not as Chroma does."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def heartbeat(self, patience_s: float = PATIENCE_S) -> None:
        answer = self._get("heartbeat", patience_s)
        if not isinstance(answer, dict) or not any("heartbeat" in key for key in answer):
            raise Failed(f"what answers at {self._url} is no Chroma server")

    def wait(self, patience_s: float = START_PATIENCE_S) -> None:
        """Wait until it answers."""
        deadline = clock.monotonic() + patience_s
        while True:
            try:
                self.heartbeat()
            except Failed:
                if clock.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)
            else:
                return

    def version(self) -> str:
        return str(self._get("version", PATIENCE_S))

    def count(self, collection: Collection) -> int | None:
        """Documents of a collection, by its id: None when the server knows no such collection."""
        try:
            return int(self._get(f"{_place(collection)}/count", PATIENCE_S))
        except _NotFound:
            return None

    def post(self, collection: Collection, action: str, words: Mapping[str, Any]) -> Any:
        """Ask something of a collection that takes a document, such as `get` or `delete`."""
        return self._get(f"{_place(collection)}/{action}", POST_PATIENCE_S, json.dumps(words).encode())

    def _get(self, path: str, patience_s: float, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self._url}/api/v2/{path}", body, {"Content-Type": "application/json"} if body else {})  # noqa: S310 - http or https, as the stack file's model holds
        try:
            with _direct.open(request, timeout=patience_s) as answer:
                return json.loads(answer.read(_LONGEST))
        except urllib.error.HTTPError as error:
            with error:
                kind = _NotFound if error.code == 404 else Failed
                raise kind(f"the Chroma server at {self._url} answered {error.code} to {path}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise Failed(f"the Chroma server at {self._url} does not answer: {reason}") from error


def _place(collection: Collection) -> str:
    tenant, database = quote(collection.tenant, safe=""), quote(collection.database, safe="")
    return f"tenants/{tenant}/databases/{database}/collections/{collection.id}"


class _NotFound(Failed):
    """The server has no such thing."""
