"""What a copied Chroma directory is known by: how many documents each collection has, and one digest of all files.

The digest `directory` is the sha256 of what `sha256sum --zero` prints for every file, in the order of the bytes of their paths:
the file's sha256, two spaces, its path inside the directory, and a NUL. By hand, inside the directory:

    find . -type f -printf '%P\\0' | LC_ALL=C sort --zero-terminated | xargs --null sha256sum --zero | sha256sum

Paths and contents decide, and nothing else: any true copy has the same digest until a program opens it to write. That Chroma
answers every document as it stands in the files is no matter of a digest: a proof compares each (`proof.py`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from storekeeper.stores.chroma import layout
from storekeeper.stores.chroma.catalogue import open_catalogue
from storekeeper.stores.lines import read_lines
from storekeeper.stores.protocol import Content
from storekeeper.stores.sealing import sha256_of

DIGEST = "directory"

Sum = tuple[str, str]  # a file's path and its sha256


def content_of(directory: Path) -> Content:
    """Counts and digest of a copy that nobody changes; every byte of it is read. Raises Failed, or OSError."""
    found = layout.scan(directory)
    return content_with(directory, ((path, sha256_of(directory / path)[0]) for path, entry in found.items() if entry.is_file))


def content_with(directory: Path, sums: Iterable[Sum]) -> Content:
    """The same where the sums of all files are known already."""
    digest = digest_of(sums)
    with open_catalogue(directory, sealed=True) as catalogue:
        return Content(catalogue.counts(), {DIGEST: digest})


def digest_of(sums: Iterable[Sum]) -> str:
    """`sums` may come in any order."""
    digest = hashlib.sha256()
    for path, sha256 in sorted(sums, key=lambda each: os.fsencode(each[0])):
        digest.update(f"{sha256}  ".encode() + os.fsencode(path) + b"\0")
    return f"sha256:{digest.hexdigest()}"


def digest_of_listing(listing: Path) -> str:
    """As a set's listing has it. Raises ValueError or KeyError for one that cannot be read."""
    return digest_of((str(entry["path"]), str(entry["sha256"])) for entry in read_lines(listing) if "sha256" in entry)
