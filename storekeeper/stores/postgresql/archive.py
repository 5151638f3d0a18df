"""The archive of a set: how pg_dump's output is compressed, and how it is read back."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from storekeeper.host.processes import Command, reading, writing
from storekeeper.outcomes import Failed, Unknown
from storekeeper.stores.postgresql.programs import Programs, find_for_restore, has_zstd, zstd_program
from storekeeper.stores.record import StoreRecord

ARCHIVE = "database.dump"
_ZSTD_SUFFIX = ".zst"
_CHUNK = 1 << 20
_TABLE_DATA = re.compile(r"^[0-9]+; [0-9]+ [0-9]+ TABLE DATA ")


@dataclass(frozen=True)
class Compression:
    """What pg_dump is told, and the program that its output goes through, if any."""

    word: str
    through: Path | None
    label: str

    @property
    def suffix(self) -> str:
        return _ZSTD_SUFFIX if self.through else ""

    def pipeline(self, dump: Command) -> list[Command]:
        return [dump] if self.through is None else [dump, Command([self.through, "-1", "-q", "-c"])]


def best_compression(programs: Programs) -> Compression:
    """What is fastest here: pg_dump's own zstd, else the zstd program, else gzip:1; its default takes ten times as long."""
    if has_zstd(programs):
        return Compression("--compress=zstd:1", None, "zstd in pg_dump")
    if (program := zstd_program()) is not None:
        return Compression("--compress=0", program, "zstd")
    return Compression("--compress=1", None, "gzip")


@dataclass(frozen=True)
class Archive:
    """A set's archive and the programs that can read it."""

    path: Path
    programs: Programs

    def commands(self, restore: Command) -> list[Command]:
        """The pipeline that feeds the archive to `restore` on its standard input."""
        return [_unpacking(), restore] if self.path.suffix == _ZSTD_SUFFIX else [restore]

    @contextmanager
    def feeding(self, restore: Command, *onward: Command) -> Iterator[Iterator[bytes]]:
        """Run `restore` with the archive on its standard input; yields what it, or the last program after it, prints."""
        with open(self.path, "rb") as source, reading(*self.commands(restore), *onward, stdin=source) as chunks:
            yield chunks

    def feed(self, restore: Command) -> None:
        """Run `restore` with the archive on its standard input, of which it may read no more than it needs."""
        if self.path.suffix != _ZSTD_SUFFIX:
            with self.feeding(restore) as chunks:
                for _ in chunks:
                    pass
            return
        with writing(restore) as sink, open(self.path, "rb") as source:
            for chunk in self._unpacked(source):
                sink.write(chunk)

    def list(self) -> list[str]:
        """The lines of its table of contents."""
        with self._listed() as file:
            return file.read().split("\n")

    @contextmanager
    def _listed(self) -> Iterator[TextIO]:
        """Its table of contents. pg_restore reads no further than that, and what fed it is ended with it."""
        with tempfile.TemporaryDirectory() as work:
            listed = Path(work) / "list"
            with writing(self._pg_restore("--list", f"--file={listed}")) as sink, open(self.path, "rb") as source:
                for chunk in self._unpacked(source):
                    sink.write(chunk)
            with open(listed, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                yield file

    def decode(self) -> None:
        """Read everything in it. Raises Failed on the first thing that does not decode."""
        with self.feeding(self._pg_restore("--file=/dev/null")) as chunks:
            for _ in chunks:
                pass

    def require_tables(self, expected: int) -> None:
        """Raises Failed when it holds the rows of fewer tables than the set's record."""
        with self._listed() as lines:
            found = sum(1 for line in lines if _TABLE_DATA.match(line))
        if found < expected:
            raise Failed(f"the archive holds the rows of {found} tables, the record names {expected}")

    @contextmanager
    def as_sql(self, through: Path | None) -> Iterator[Iterator[bytes]]:
        """The archive as the plain SQL that psql reads, compressed where a program for it is given."""
        onward = [Command([through, "-1", "-q", "-c"])] if through else []
        with self.feeding(self._pg_restore("--file=-"), *onward) as chunks:
            yield chunks

    def _unpacked(self, source: IO[bytes]) -> Iterator[bytes]:
        if self.path.suffix != _ZSTD_SUFFIX:
            yield from iter(lambda: source.read(_CHUNK), b"")
            return
        with reading(_unpacking(), stdin=source) as chunks:
            yield from chunks

    def _pg_restore(self, *words: str) -> Command:
        return Command([self.programs.path("pg_restore"), *words])


def open_archive(folder: Path, record: StoreRecord, declared: Path | None) -> Archive:
    """Raises Failed when the set has no archive, Unknown when nothing here can read it."""
    names = [artefact.path for artefact in record.artefacts if artefact.path in (ARCHIVE, ARCHIVE + _ZSTD_SUFFIX)]
    if len(names) != 1:
        raise Failed(f"the set has {len(names)} archives of the database, not one")
    return Archive(
        folder / names[0], find_for_restore(declared, record.version, str(record.details.get("archive_version", record.version)))
    )


def _unpacking() -> Command:
    program = zstd_program()
    if program is None:
        raise Unknown("the archive is compressed with zstd, and the zstd program is not installed", next="apt-get install zstd")
    return Command([program, "-dqc"])
