"""What lies in a set and is none of its own: found by its listings alone, whose files are walked and not read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from storekeeper.sets.manifest import MANIFEST, Manifest
from storekeeper.stores.lines import read_lines
from storekeeper.stores.record import StoreRecord
from storekeeper.stores.sealing import sha256_of


def stranger(folder: Path, manifest: Manifest) -> str | None:
    """The first thing in a set's directory that is not the set's own, by name; nothing is read but the listings."""
    if (beside := min(names_beside(folder, {MANIFEST, *manifest.stores}), default=None)) is not None:
        return beside
    for store, record in manifest.stores.items():
        if not is_directory(folder / store):
            continue
        expected = {word for each in record.artefacts for word in (each.path, each.lists)}
        foreign = min(names_beside(folder / store, expected), default=None) or _unlisted(folder / store, record)
        if foreign is not None:
            return f"{store}/{foreign}"
    return None


def names_beside(folder: Path | str, expected: Collection[str | None]) -> Iterator[str]:
    """What a directory itself holds beside what it should, as it comes: there may be any number."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name not in expected:
                yield entry.name


def extra_files(content: Path, listing: Path) -> Iterator[str]:
    """The paths below `content` that `listing` does not list. Both are walked in the order of their bytes."""
    listed = (os.fsencode(str(entry["path"])) for entry in read_lines(listing) if "sha256" in entry)
    known = next(listed, None)
    for found in _sorted_files(content):
        while known is not None and known < found:
            known = next(listed, None)
        if found != known:
            yield os.fsdecode(found)


def count_files(folder: Path | str) -> int:
    """Everything below a folder that is no directory. Entries are counted as they come, never gathered."""
    count, pending = 0, [folder] if is_directory(folder) else []
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    count += 1
    return count


def is_directory(path: Path | str) -> bool:
    """Whether it is one itself, and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def _unlisted(folder: Path, record: StoreRecord) -> str | None:
    """The first file that an intact listing does not list; by a damaged listing nothing can be told."""
    for artefact in record.artefacts:
        if artefact.lists is None or not is_directory(folder / artefact.lists) or not (folder / artefact.path).is_file():
            continue
        if sha256_of(folder / artefact.path) == (artefact.sha256, artefact.size):
            found = next(extra_files(folder / artefact.lists, folder / artefact.path), None)
            if found is not None:
                return f"{artefact.lists}/{found}"
    return None


def _sorted_files(folder: Path) -> Iterator[bytes]:
    """The relative paths of everything that is no directory, in the order of their bytes.

    A directory is sorted as if its name ended with a slash: `a.txt` comes before `a/b`, as it does in the whole paths.
    """
    root = os.fsencode(folder)
    pending = [b"/"]
    while pending:
        name = pending.pop()
        if not name.endswith(b"/"):
            yield name
            continue
        inside = b"" if name == b"/" else name
        with os.scandir(os.path.join(root, inside)) as found:
            children = [inside + each.name + (b"/" if each.is_dir(follow_symlinks=False) else b"") for each in found]
        pending += sorted(children, reverse=True)
