"""What a running Chroma server says of itself, over its HTTP interface (version 2). Loopback or a private network: it has no passwords."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

from storekeeper.host import clock
from storekeeper.outcomes import Failed
from storekeeper.stores.chroma.catalogue import Collection

PATIENCE_S = 10.0
START_PATIENCE_S = 60.0  # a server that has just been started opens its directory first
_PAUSE_S = 0.2
_LONGEST = 1 << 24
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
        place = f"tenants/{quote(collection.tenant, safe='')}/databases/{quote(collection.database, safe='')}"
        try:
            return int(self._get(f"{place}/collections/{collection.id}/count", PATIENCE_S))
        except _NotFound:
            return None

    def _get(self, path: str, patience_s: float) -> Any:
        url = f"{self._url}/api/v2/{path}"
        try:
            with _direct.open(url, timeout=patience_s) as answer:
                return json.loads(answer.read(_LONGEST))
        except urllib.error.HTTPError as error:
            with error:
                kind = _NotFound if error.code == 404 else Failed
                raise kind(f"the Chroma server at {self._url} answered {error.code} to {path}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise Failed(f"the Chroma server at {self._url} does not answer: {reason}") from error


class _NotFound(Failed):
    """The server has no such thing."""
