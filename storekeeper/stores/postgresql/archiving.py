"""pg_dump on its way into a set: a thread stores what it gives, while its caller dumps other stores or reads the same moment for itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from storekeeper.host import clock
from storekeeper.host.aside import Aside
from storekeeper.host.processes import Command, reading
from storekeeper.host.waiting import result_of
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.postgresql.archive import ARCHIVE, Compression
from storekeeper.stores.postgresql.connection import Access
from storekeeper.stores.postgresql.programs import Programs

SILENCE_SECONDS = 1800.0  # without a byte from pg_dump: the server hangs
_LOCK_WAIT = "30s"  # of pg_dump, for tables that the hold does not lock


class Archiving:
    """One dump of a snapshot, begun when this is made. `finish` waits for it; `give_up` ends it at any time, and is safe to repeat.

    `more` are further words for pg_dump.
    """

    def __init__(
        self,
        access: Access,
        database: str,
        snapshot: str,
        programs: Programs,
        compression: Compression,
        into: StoreFolder,
        more: Sequence[str] = (),
    ) -> None:
        self.seconds = 0.0
        self.programs = programs
        self.compression = compression
        self._path = into.path / (ARCHIVE + compression.suffix)
        words = ["--format=custom", compression.word, f"--snapshot={snapshot}", "--no-password", f"--lock-wait-timeout={_LOCK_WAIT}", *more]
        with ExitStack() as opened:
            environment = opened.enter_context(access.environment(database))
            command = access.command(programs.path("pg_dump"), *words, f"--dbname={database}", environment=environment)
            self._writing = opened.enter_context(into.beside(self._path.name))
            self._aside = opened.enter_context(Aside())
            self._written = self._aside.begin(self._write, compression.pipeline(command))
            self._opened = opened.pop_all()

    def finish(self, into: StoreFolder) -> Path:
        """The archive, recorded as an artefact. Raises Failed when pg_dump, or storing what it gave, did."""
        with self._opened:
            result_of(self._written, lambda: self._writing.size, into.advance)
            self._writing.keep()
        return self._path

    def give_up(self) -> None:
        self._aside.give_up()
        self._opened.close()

    def _write(self, commands: Sequence[Command]) -> None:
        began = clock.monotonic()
        with reading(*commands, patience=SILENCE_SECONDS) as chunks:
            self._writing.write(chunks)
        self.seconds = clock.monotonic() - began
