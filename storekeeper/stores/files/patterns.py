"""Which documents a tree holds files of: the entries that a declared pattern matches, with the id that stands in each path.

`{id}` and `{owner}` stand for anything within one name, `*` and `?` for what the shell makes of them. Where something may follow the
id that could be part of one (`{id}_*`), the id ends at the first place where it can; ids that hold that sign cannot be told then.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from functools import lru_cache

from storekeeper.host.tree import Tree, joined
from storekeeper.outcomes import Failed
from storekeeper.stores.files.listing import is_gone, shown, unreadable
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.identities import Identity

_ID, _OWNER = "{id}", "{owner}"
_WORDS = re.compile(r"\{id\}|\{owner\}|\*|\?|[^{*?]+")


class Pattern:
    """One declared pattern, taken apart."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names = tuple(text.split("/"))

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts that end an id, or stand before it, where anything may stand beyond: no id may hold one."""
        name = next(name for name in self.names if _ID in name)
        words = _WORDS.findall(name)
        place = words.index(_ID)
        after = words[place + 1 : place + 2] if any(word in ("*", "?", _OWNER) for word in words[place + 1 :]) else []
        before = words[place - 1 : place] if any(word in ("*", "?", _OWNER) for word in words[:place]) else []
        return (*before, *after)

    def entries(self, tree: Tree, scope: Scope) -> Iterator[tuple[str, str, str | None]]:
        """Path, id and owner of every entry that matches, in no order. Raises Failed for a directory that cannot be read; one that is not
        there holds nothing, except the root.
        """
        try:
            tree.directory("")
        except OSError as error:
            raise unreadable("", error) from error
        yield from self._below(tree, scope, "", 0, {})

    def holds(self, path: str, document: str) -> bool:
        """Whether a path is an entry of this document by its names alone, or is below one."""
        known: dict[str, str] = {}
        names = path.split("/")
        if len(names) < len(self.names):
            return False
        for name, each in zip(self.names, names, strict=False):
            if (found := _compiled(name).fullmatch(each)) is None:
                return False
            known.update(found.groupdict())
        return known["id"] == document

    def of(self, tree: Tree, scope: Scope, document: str, owner: str | None = None) -> list[str]:
        """The paths of one document's entries, sorted."""
        found = self.entries(tree, scope)
        return sorted(path for path, each, whose in found if each == document and (owner is None or whose in (None, owner)))

    def identities(self, tree: Tree, scope: Scope) -> Iterator[Identity]:
        for _, document, owner in self.entries(tree, scope):
            yield Identity(document, owner, chunks=1)

    def of_paths(self, paths: Iterable[str]) -> Iterator[Identity]:
        """The same of the paths of a set's listing."""
        names = [_compiled(name) for name in self.names]
        for path in paths:
            parts = path.split("/")
            if len(parts) == len(names):
                found = [name.fullmatch(part) for name, part in zip(names, parts, strict=True)]
                words = {key: word for each in found if each is not None for key, word in each.groupdict().items()}
                if all(found):
                    yield Identity(words["id"], words.get("owner"), chunks=1)

    def _below(self, tree: Tree, scope: Scope, directory: str, depth: int, known: dict[str, str]) -> Iterator[tuple[str, str, str | None]]:
        name, is_last = self.names[depth], depth == len(self.names) - 1
        matching, is_covered = _compiled(name), directory != "" and scope.covers(directory)  # and all that is in it
        named = matching.groupindex
        for each in _matching(tree, directory, name, is_last=is_last):
            if (found := matching.fullmatch(each)) is None:
                continue
            path = joined(directory, each)
            if scope.leaves_out(path) or not (is_covered or _leads_into(scope, path, is_last=is_last)):
                continue
            if is_last:
                document = found["id"] if "id" in named else known["id"]
                yield path, document, found["owner"] if "owner" in named else known.get("owner")
            else:
                yield from self._below(tree, scope, path, depth + 1, {**known, **found.groupdict()})


def _leads_into(scope: Scope, path: str, *, is_last: bool) -> bool:
    """Whether a path is covered, or is above what is."""
    return scope.covers(path) or (not is_last and any(entry.startswith(path + "/") for entry in scope.include))


def _matching(tree: Tree, directory: str, name: str, *, is_last: bool) -> Iterator[str]:
    """The names in a directory that may match; a fixed one is only looked for, and must be a directory where more follows."""
    is_fixed = not re.search(r"[{*?]", name)
    try:
        if not is_fixed:
            with os.scandir(tree.directory(directory)) as entries:
                yield from (entry.name for entry in entries)
        elif is_last or stat.S_ISDIR(tree.lstat(joined(directory, name)).st_mode):
            tree.lstat(joined(directory, name))
            yield name
        else:
            raise Failed(f"{shown(joined(directory, name))} is no directory, and what is declared below it is not looked for there")
    except OSError as error:
        if not is_gone(error):
            raise unreadable(directory, error) from error


@lru_cache(maxsize=1000)
def _compiled(name: str) -> re.Pattern[str]:
    made = {_ID: "(?P<id>[^/]+?)", _OWNER: "(?P<owner>[^/]+?)", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(made.get(word) or re.escape(word) for word in _WORDS.findall(name)), re.DOTALL)
