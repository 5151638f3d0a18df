"""Proves a set by Chroma itself: every document of a scratch copy is asked for, and compared with our own reading of the set.

The scratch copy's bytes are hashed before Chroma opens it, which changes them. So a proof holds both: the bytes are those of the
set, and Chroma answers from them every id, text, URI, metadata and vector that they hold, and nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storekeeper.host import clock, durable, processes
from storekeeper.outcomes import Failed, Unknown
from storekeeper.stores import rawcopy
from storekeeper.stores.chroma import catalogue, comparison, layout
from storekeeper.stores.chroma.catalogue import Catalogue, Collection, open_catalogue
from storekeeper.stores.chroma.content import content_of
from storekeeper.stores.chroma.rows import CollectionRows
from storekeeper.stores.protocol import Content

PATIENCE_S = 600.0  # for one answer: opening applies the queue, and a large index is read whole
_READER = Path(__file__).with_name("reader.py")
_LAST_WORDS = 1000


def prove(directory: Path, scratch: Path, python: Path | None, patience_s: float = PATIENCE_S) -> Content:
    """Copy a set's directory to scratch and read it back through Chroma; returns what the copy held before Chroma opened it.

    Raises Unknown when no interpreter here has a chromadb that can read it, Failed when Chroma answers anything else than the set
    holds, naming the collection and the document.
    """
    interpreter = _interpreter(python)
    copy, blank = scratch / "directory", scratch / "blank"
    copy_directory(directory, copy)
    durable.make_directory(blank)
    content = content_of(copy)
    with open_catalogue(directory, sealed=True) as found, _reader(interpreter, patience_s) as reader:
        collections = found.collections()
        databases = sorted({(each.tenant, each.database) for each in collections})
        version = str(reader.ask({"blank": str(blank), "path": str(copy), "databases": databases})["version"])
        _refuse_older(found, blank, version)
        counts = {tuple(key): int(count) for *key, count in reader.ask({})["collections"]}
        _compare_names(collections, counts)
        for each in collections:
            with CollectionRows(found, each) as rows:
                comparison.compare(each, rows, counts[each.tenant, each.database, each.name], reader.ask)
    return content


def copy_directory(source: Path, target: Path) -> None:
    """A plain copy to throw away: private, not durable."""
    durable.make_directory(target)
    for entry in layout.scan(source).values():
        if entry.is_file:
            rawcopy.copy_file(source / entry.path, target / entry.path)
        else:
            os.mkdir(target / entry.path, durable.PRIVATE_DIRECTORY)


class Reader:
    """The subprocess that has chromadb: one question, one answer, each in bounded time."""

    def __init__(self, interpreter: Path, process: subprocess.Popen[bytes], patience_s: float) -> None:
        self._interpreter = interpreter
        self._process = process
        self._patience_s = patience_s
        self._answers = bytearray()
        self._words = bytearray()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Raises Failed when the reader ends, hangs or does not speak JSON, Unknown when it has no chromadb."""
        if self._process.stdin is None:
            raise ValueError("the reader was started with a pipe")
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: the answer that does not come says so
        answer = json.loads(self._line())
        if "missing" in answer:
            raise Unknown(f"{self._interpreter} has no chromadb: {answer['missing']}", next=_NEXT)
        return dict(answer)

    def _line(self) -> bytes:
        if self._process.stdout is None:
            raise ValueError("the reader was started with a pipe")
        deadline = clock.monotonic() + self._patience_s
        searched = 0
        while (end := self._answers.find(b"\n", searched)) < 0:
            searched = len(self._answers)
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - clock.monotonic()))
            if not ready:
                raise Failed(f"Chroma did not answer within {self._patience_s:g} s while the copy was read")
            chunk = os.read(self._process.stdout.fileno(), 1 << 20)
            if not chunk:
                raise Failed(f"Chroma cannot read the copy: its process {self._ended()}")
            self._answers += chunk
        line = bytes(self._answers[:end])
        del self._answers[: end + 1]
        return line

    def _ended(self) -> str:
        code = self._process.wait()
        self._listener.join()
        words = " ".join(self._words[-_LAST_WORDS:].decode(errors="replace").split())
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        return f"{how}: {words}" if words else how

    def _listen(self) -> None:
        for line in self._process.stderr or ():
            self._words += line
            del self._words[: -4 * _LAST_WORDS]


_NEXT = "declare `python:`, the application's interpreter, which has chromadb; or: pip install chromadb==" + catalogue.KNOWN_VERSION


@contextmanager
def _reader(interpreter: Path, patience_s: float) -> Iterator[Reader]:
    command = processes.Command([interpreter, "-B", _READER], environment={"ANONYMIZED_TELEMETRY": "False", "LC_ALL": "C.UTF-8"})
    try:
        process = processes.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except processes.ProgramFailed as error:
        raise Unknown(f"the copy cannot be read: {error.message}", next=_NEXT) from error
    try:
        yield Reader(interpreter, process, patience_s)
    finally:
        process.kill()  # it works on a copy to throw away
        processes.end(process)


def _interpreter(python: Path | None) -> Path:
    if python is not None:
        return python
    if importlib.util.find_spec("chromadb") is None:
        raise Unknown("no interpreter with chromadb is declared, and the engine's own has none: the set could not be tried", next=_NEXT)
    return Path(sys.executable)


def _refuse_older(found: Catalogue, blank: Path, version: str) -> None:
    """A directory from a newer Chroma opens silently in an older one, which then reads it wrongly."""
    with open_catalogue(blank, sealed=False) as reader:
        known = reader.migrations()
    if catalogue.ahead_of(found.migrations(), known):
        said = f"the set has migrations {catalogue.spoken(found.migrations())}, chromadb {version} knows {catalogue.spoken(known)}"
        raise Unknown(f"the set cannot be tried here: {said}", next="declare `python:`, the interpreter of the application that wrote it")


def _compare_names(collections: Sequence[Collection], counts: dict[tuple[str, ...], int]) -> None:
    expected = {(each.tenant, each.database, each.name) for each in collections}
    for name in sorted(expected.symmetric_difference(counts)):
        raise Failed(
            f"collection {'/'.join(name)} is {'in the set, but Chroma does not list it' if name in expected else 'not in the set'}"
        )
