"""borgmatic and restic on the live stores of `benchmarks.mixed`, each used as its own documentation says; and where Ansible is."""

from __future__ import annotations

import json
import os
import venv
from pathlib import Path
from typing import Protocol

from benchmarks import others, postgresql
from benchmarks.measuring import Timing, fresh, run, timed
from tests.harness.postgresql import PASSWORD, Server
from tests.harness.program import CHECKOUT

_ANSIBLE = "2.19.14"  # the newest that runs on Python 3.11


def ansible() -> Path:
    """The program `ansible-playbook`, installed when it is first needed."""
    programs = CHECKOUT / ".cache/benchmarks/ansible/bin"
    if not (programs / "ansible-playbook").exists():
        venv.create(programs.parent, with_pip=True, clear=True)
        run([programs / "pip", "install", "--quiet", f"ansible-core=={_ANSIBLE}"])
    return programs / "ansible-playbook"


def ansible_version() -> str:
    return _ANSIBLE


class Stores(Protocol):
    @property
    def server(self) -> Server: ...
    @property
    def database(self) -> Path: ...
    @property
    def papers(self) -> Path: ...


class Rival:
    """A program with a repository of its own below `beside`, which is a new one at every `renew`."""

    def __init__(self, beside: Path, live: Stores) -> None:
        self._beside = beside
        self._live = live
        self.renew()

    @property
    def repository(self) -> Path:
        return self._root / "repository"

    def renew(self) -> None:
        self._root = fresh(self._beside)
        self._make_repository()

    def first(self, number: int) -> Timing:
        self.renew()
        return self.again(number)

    def again(self, number: int) -> Timing:
        raise NotImplementedError

    def _make_repository(self) -> None:
        raise NotImplementedError


class Borgmatic(Rival):
    """Its hooks for PostgreSQL and SQLite, and the files as a source.

    `compression` is borg's and pg_dump's; None leaves both as they are.
    """

    def __init__(self, root: Path, live: Stores, compression: str | None) -> None:
        self._compression = compression
        self._programs = others.borgmatic()
        super().__init__(root, live)

    def _make_repository(self) -> None:
        (self._root / "config.yaml").write_text(json.dumps(self._configuration()))
        self._run("repo-create", "--encryption", "none")

    def again(self, number: int) -> Timing:  # noqa: ARG002
        return timed(lambda: self._run("create"), os.sync)

    def verify(self, number: int) -> Timing:  # noqa: ARG002
        return timed(lambda: self._run("check", "--force", "--only", "data"))

    def restore(self, number: int) -> Timing:  # noqa: ARG002
        """The databases over what is live, the files beside, which is less than to put them in place."""
        into = fresh(self._root / "extracted")
        words = ("--archive", "latest", "--destination", str(into), "--path", str(self._live.papers).lstrip("/"))
        return timed(lambda: self._run("restore", "--archive", "latest"), lambda: self._run("extract", *words), os.sync)

    def _run(self, *words: str) -> None:
        path = f"{self._programs}:{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": str(self._root), "BORG_BASE_DIR": str(self._root / "borg"), "LC_ALL": "C.UTF-8"}
        run([self._programs / "borgmatic", "--config", self._root / "config.yaml", "--verbosity", "-1", *words], env=environment)

    def _configuration(self) -> dict[str, object]:
        server = self._live.server
        # Over TCP: it takes the directory of a socket for a part of its own paths.
        where = {"hostname": "127.0.0.1", "port": server.port, "username": "postgres", "password": PASSWORD}
        database: dict[str, object] = {"name": postgresql.DATABASE, **where}
        for program in ("pg_dump", "pg_restore", "psql"):
            database[f"{program}_command"] = str(server.programs / program)
        words: dict[str, object] = {}
        if self._compression is not None:
            words["compression"] = database["compression"] = self._compression
        return {
            **words,
            "source_directories": [str(self._live.papers)],
            "repositories": [{"path": str(self.repository)}],
            "unknown_unencrypted_repo_access_is_ok": True,
            "postgresql_databases": [database],
            "sqlite_databases": [{"name": "app", "path": str(self._live.database)}],
        }


class Restic(Rival):
    """An uncompressed archive of pg_dump and a copy by `sqlite3 .backup`, and restic over both and the files."""

    def __init__(self, root: Path, live: Stores) -> None:
        self._program = others.restic()
        super().__init__(root, live)

    def _make_repository(self) -> None:
        (self._root / "dumps").mkdir()
        self._run("init")

    def again(self, number: int) -> Timing:  # noqa: ARG002
        return timed(self._dump, lambda: self._run("backup", str(self._root / "dumps"), str(self._live.papers)), os.sync)

    def verify(self, number: int) -> Timing:  # noqa: ARG002
        return timed(lambda: self._run("check", "--read-data"))

    def restore(self, number: int) -> Timing:  # noqa: ARG002
        return timed(lambda: self._restore(fresh(self._root / "restored")))

    def _dump(self) -> None:
        for old in (self._root / "dumps").iterdir():
            old.unlink()
        words = ("-Fc", "-Z0", "-f", self._root / "dumps/rows.dump", postgresql.DATABASE)
        run(postgresql.client(self._live.server, "pg_dump", *words))
        run(["sqlite3", self._live.database, f".backup {self._root}/dumps/app.db"])

    def _restore(self, into: Path) -> None:
        self._run("restore", "latest", "--target", str(into))
        dumps = into / str(self._root / "dumps").lstrip("/")
        words = ("--clean", "--if-exists", "-d", postgresql.DATABASE, dumps / "rows.dump")
        run(postgresql.client(self._live.server, "pg_restore", *words))
        run(["sqlite3", self._live.database, f".restore {dumps}/app.db"])
        os.sync()

    def _run(self, *words: str) -> None:
        environment = {"HOME": str(self._root), "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(self._root / "cache")}
        run([self._program, "--quiet", "-r", self.repository, *words], env={**environment, "PATH": os.environ["PATH"]})
