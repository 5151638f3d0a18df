"""How a verb can end, and the sentences that say why.

Every refusal and failure of the program is one of the exceptions here. Each carries the sentence that a person reads
(what was attempted, what was found), the store it is about and the next command; the exit code follows from its class.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Outcome(StrEnum):
    """The `outcome` of a document or of one store in it."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    BUSY = "busy"
    SKIPPED = "skipped"


EXIT_CODES = {
    Outcome.OK: 0,
    Outcome.FAILED: 1,
    Outcome.REFUSED: 2,
    Outcome.UNKNOWN: 3,
    Outcome.WARNING: 4,
    Outcome.BUSY: 75,
}


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Problem:
    """One entry of a document's `problems`: a sentence about a stack or one of its stores, and what to do next.

    `stack` is said only where a verb answers for several stacks.
    """

    message: str
    severity: Severity = Severity.ERROR
    store: str | None = None
    next: str | None = None
    stack: str | None = None


def said_by_the_system(error: OSError) -> str:
    """`No space left on device: /var/lib/storekeeper/sequence`."""
    what = error.strerror or type(error).__name__
    return f"{what}: {error.filename}" if error.filename else what


class StorekeeperError(Exception):
    """Base of all errors that are said in one sentence, without a traceback."""

    outcome: ClassVar[Outcome] = Outcome.FAILED

    def __init__(self, message: str, *, store: str | None = None, next: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.store = store
        self.next = next

    def problem(self) -> Problem:
        return Problem(self.message, Severity.ERROR, self.store, self.next)

    def about(self, store: str) -> StorekeeperError:
        """The same error, naming `store` where no store is named yet."""
        if self.store is None:
            self.store = store
        return self


class Failed(StorekeeperError):
    """The work was tried and went wrong (exit 1)."""


class Refused(StorekeeperError):
    """The work was not begun because it would be unsafe or was asked for wrongly; nothing was changed (exit 2)."""

    outcome = Outcome.REFUSED


class Unknown(StorekeeperError):
    """It could not be found out (exit 3). Unknown is neither good nor empty."""

    outcome = Outcome.UNKNOWN


class Busy(StorekeeperError):
    """Somebody else is at it (exit 75)."""

    outcome = Outcome.BUSY


@contextmanager
def naming(store: str) -> Iterator[None]:
    """Errors of the block name this store."""
    try:
        yield
    except StorekeeperError as error:
        error.about(store)
        raise
