"""Which entries of a set a part of it needs: names only, from the set's listing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from storekeeper.host.tree import parents_of
from storekeeper.stores.files.checking import listed
from storekeeper.stores.files.patterns import Pattern
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.identities import PatternSource
from storekeeper.stores.protocol import Part


def paths_of(part: Part, folder: Path, scope: Scope) -> set[str]:
    """The entries of a document, all below them, the first names of hard links, and the directories above."""
    patterns = [Pattern(each.pattern) for each in part.sources if isinstance(each, PatternSource)]
    wanted = set[str]()
    for entry in listed(folder, scope):
        if any(each.holds(entry["path"], part.document) for each in patterns):
            wanted.add(entry["path"])
            wanted |= {entry["hardlink"]} if "hardlink" in entry else set()
    return with_parents(wanted)


def with_parents(paths: Iterable[str]) -> set[str]:
    found = set(paths)
    return found.union(*(parents_of(path) for path in found)) if found else found
