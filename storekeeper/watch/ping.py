"""One line to a dead-man service after each run: it raises the alarm when the line does not come.

The address itself is a secret of sorts (whoever knows it can silence the alarm): messages name its host only.
"""

from __future__ import annotations

import http.client
import queue
import threading
import urllib.error
import urllib.request
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from storekeeper import __version__
from storekeeper.outcomes import Problem, Severity

_PATIENCE = 10.0  # seconds for everything: name, connection, answer
_LONGEST = 10_000  # characters of the sentence
_SCHEMES = ("http", "https")


def ping(url: str, ok: bool, sentence: str, *, patience: float = _PATIENCE) -> Problem | None:
    """Send the sentence to `url`, or to `url` with `/fail` where the run was not good (healthchecks.io's convention).

    Never raises and never takes longer than `patience` seconds. None when it was delivered (a status from 200 to 299), else a warning.
    """
    answers: queue.Queue[str | None] = queue.Queue(1)
    # In a thread: no timeout of a socket covers the lookup of a name or an answer that comes byte by byte.
    threading.Thread(target=lambda: answers.put(_deliver(url, ok, sentence, patience)), daemon=True).start()
    try:
        reason = answers.get(timeout=patience)
    except queue.Empty:
        reason = f"no answer within {patience:g} s"
    if reason is None:
        return None
    return Problem(
        f"the ping to {_host(url)} was not delivered: {reason}", Severity.WARNING, next="check `ping:` in the stack file and the network"
    )


class _SameKind(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, none to another scheme except from http to https."""

    max_redirections = 3

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise urllib.error.HTTPError(req.full_url, code, "redirected to another kind of address", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _deliver(url: str, ok: bool, sentence: str, patience: float) -> str | None:
    """None when delivered, else the reason; no exception leaves the thread."""
    try:
        address = url if ok else _failing(url)
        if urlsplit(address).scheme not in _SCHEMES:
            return "only http and https addresses are used"
        request = urllib.request.Request(  # noqa: S310 the scheme is checked above
            address,
            data=sentence[:_LONGEST].encode(errors="replace"),
            headers={"Content-Type": "text/plain; charset=utf-8", "User-Agent": f"storekeeper/{__version__}"},
        )
        with urllib.request.build_opener(_SameKind).open(request, timeout=patience):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return f"it answered {error.code}"
    except urllib.error.URLError as error:
        return _without_address(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return _without_address(error)


def _without_address(error: object) -> str:
    """Why it failed, without the words of libraries that repeat the address."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _failing(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/fail"))


def _host(url: str) -> str:
    nameless = "an address without a host"
    try:
        return urlsplit(url).hostname or nameless
    except ValueError:
        return nameless
