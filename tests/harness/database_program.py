"""The program with a stack of one database that it reaches with a password, as an application's would be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness.postgresql import PASSWORD, Server, programs_of, reachable_directory
from tests.harness.program import Program


class DatabaseProgram(Program):
    """`folder` is a directory that the server's user can reach too."""

    def __init__(self, room: Path, server: Server, folder: Path) -> None:
        super().__init__(room)
        self.folder = folder
        settings = self.config / "storekeeper.yml"
        settings.write_text(settings.read_text().replace(f"scratch: {room}", f"scratch: {folder}"))
        self.secret = room / "secret"
        self._server = server
        self.declare_database()

    def declare_database(self, programs: Path | None = None) -> None:
        where = f"host: 127.0.0.1, port: {self._server.port}, password: {{file: {self.secret}}}"
        words = f"kind: postgresql, database: postgres, user: postgres, {where}, programs: {programs or programs_of(self._server.major)}"
        self.declare(f"stack: demo\nstores:\n  rows: {{{words}}}\n")

    def records(self) -> list[dict[str, Any]]:
        """What is kept of every run."""
        return [json.loads(path.read_text()) for path in sorted((self.state / "jobs/demo").glob("*.json"))]

    def partials(self) -> list[Path]:
        return sorted((self.repository / "demo").glob(".*.partial"))

    def everything_written(self) -> str:
        """All that it keeps outside of its sets, the secret's own file excepted."""
        files = [path for folder in (self.state, self.config) for path in folder.rglob("*") if path.is_file()]
        return "".join(path.read_bytes().decode(errors="replace") for path in files)


@contextmanager
def database_program(room: Path, server: Server) -> Iterator[DatabaseProgram]:
    folder = reachable_directory()
    try:
        (room / "secret").write_text(PASSWORD)
        (room / "secret").chmod(0o600)
        yield DatabaseProgram(room, server, folder)
    finally:
        shutil.rmtree(folder)


def programs_with(folder: Path, script: str, program: str = "pg_dump", when: str = "--snapshot") -> Path:
    """The real programs, but one of them is a script when these words are among its own; `{real}` in it is the real one."""
    folder.mkdir()
    folder.chmod(0o755)
    for each in programs_of(18).iterdir():
        (folder / each.name).symlink_to(each)
    real = programs_of(18) / program
    (folder / program).unlink()
    (folder / program).write_text(f'#!/bin/sh\ncase "$*" in *{when}*) {script.format(real=real)} ;; *) exec {real} "$@" ;; esac\n')
    (folder / program).chmod(0o755)
    return folder
