"""A small migration program of an application: numbered SQL files, and a table of those that were applied. It is run as a process.

`numbered.py FOLDER DATABASE upgrade|downgrade N|stamp N|current|history`. A file `0002_name.sql` goes up, `0002_name.down.sql` down.
Like SQLite's shell, and unlike what is careful, it commits each statement by itself.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path

TABLE = "create table if not exists migrations (version text primary key, applied_at text default current_timestamp)"


class Migrations:
    """The files of a folder and what one database knows of them."""

    def __init__(self, folder: Path, database: str) -> None:
        self._up = {path.name.partition("_")[0]: path for path in sorted(folder.glob("*_*.sql")) if ".down." not in path.name}
        self._down = {path.name.partition("_")[0]: path for path in folder.glob("*_*.down.sql")}
        self._connection = sqlite3.connect(database, isolation_level=None)

    def applied(self) -> list[str]:
        known = self._connection.execute("select count(*) from sqlite_master where name = 'migrations'").fetchone() == (1,)
        return [version for (version,) in self._connection.execute("select version from migrations order by version")] if known else []

    def upgrade(self) -> None:
        for version in [each for each in self._up if each not in self.applied()]:
            self._run(self._up[version], version)
            self.stamp(version)

    def downgrade(self, version: str) -> None:
        for each in [each for each in reversed(self.applied()) if each > version]:
            self._run(self._down[each], each)
            self._connection.execute("delete from migrations where version = ?", (each,))

    def stamp(self, version: str) -> None:
        self._connection.execute(TABLE)
        self._connection.execute("insert into migrations (version) values (?)", (version,))

    def _run(self, path: Path, version: str) -> None:
        statements = path.read_text(encoding="utf-8").split(";\n")
        for number, statement in enumerate(statements, 1):
            try:
                self._connection.execute(statement)
            except sqlite3.Error as error:
                sys.exit(f"{version}: statement {number}: {error}")


def main(folder: str, database: str, action: str, *words: str) -> None:
    found = Migrations(Path(folder), database)
    if action == "current":
        print(*found.applied()[-1:])
    elif action == "history":
        print(*found.applied(), sep="\n")
    else:
        getattr(found, action)(*words)


def command(folder: Path, *words: str, timeout: str = "1m", arguments: tuple[str, ...] = ()) -> Mapping[str, object]:
    """As a stack file declares it, for the database `main`."""
    run = [sys.executable, str(Path(__file__).resolve()), str(folder), "{main}", *words]
    return {"run": run, "timeout": timeout, "arguments": list(arguments)}


if __name__ == "__main__":
    main(*sys.argv[1:])
