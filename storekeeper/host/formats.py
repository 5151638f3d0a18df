"""How documents that outlive the program are read by another version of it: the one place where an older one becomes today's.

Every such document says the number of its format. It is brought up to date in memory, one step a number; what is on disk
stays as it was written. A number that is not known yet is refused: what it says could mean anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from storekeeper.outcomes import Refused

Step = Callable[[dict[str, Any]], dict[str, Any]]


class NewerFormat(Refused):
    """A newer version of this program wrote it; nothing can be said of it here."""


def number_of(document: Mapping[str, Any], *, key: str = "schema", unnumbered: int | None = None) -> int:
    """The number that a document says, or `unnumbered` where it says none. Raises ValueError for what is no number."""
    number = document.get(key, unnumbered)
    if not isinstance(number, int) or isinstance(number, bool) or number < (1 if unnumbered is None else unnumbered):
        raise ValueError(f"it says no {key}")
    return number


def refuse_newer(found: int, newest: int, *, what: str, key: str = "schema") -> None:
    """Raises NewerFormat with both numbers for one that is not known; `what` names the document."""
    if found > newest:
        raise NewerFormat(f"{what} has {key} {found}, this version reads up to {newest}", next="pip install --upgrade storekeeper")


def upgraded(
    document: dict[str, Any], found: int, newest: int, steps: Mapping[int, Step], *, what: str, key: str = "schema"
) -> dict[str, Any]:
    """A document of format `found` as the newest would have said it; `steps[n]` makes one of n + 1 out of one of n.

    A number without a step only gained what may be missing. Raises NewerFormat as `refuse_newer` does.
    """
    refuse_newer(found, newest, what=what, key=key)
    for number in range(found, newest):
        document = steps[number](document) if number in steps else document
    return document
