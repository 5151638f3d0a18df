"""While PostgreSQL's programs dump or load, the other stores are dumped and staged: what fails on either side ends the other."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed
from storekeeper.restore.plan import RestoreRequest
from storekeeper.sets.publishing import take_set
from storekeeper.stores.sqlite.store import SqliteStore
from storekeeper.verbs.restore import restore
from tests.harness.database_program import programs_with
from tests.harness.postgresql import Server
from tests.harness.stacks import Lab, in_child, make_lab, postgresql_part

SLOW = 'sleep 1.5; exec {real} "$@"'
FOREVER = "exec perl -e 'sleep 300' -- \"$@\""  # itself what was started, and still told the same words


@contextmanager
def laboratory(room: Path, server: Server, script: str, program: str = "pg_dump", when: str = "--snapshot") -> Iterator[Lab]:
    """A database whose program is a script, declared first; then a SQLite database and files."""
    name = f"side{abs(hash(room)) % 10**9}"
    lab = make_lab(room, sqlites=1, services=0, first={"rows": postgresql_part(server, name)})
    try:
        lab.write("one")
        programs = programs_with(lab.context.scratch / "bin", script, program, when)
        lab.context.stores["rows"]._declared = server.declared(name, programs=programs)  # type: ignore[attr-defined]
        yield lab
    finally:
        lab.close()


def running(word: str) -> list[str]:
    return subprocess.run(["pgrep", "-f", "--", word], capture_output=True, text=True, check=False).stdout.split()


def seen_while(monkeypatch: pytest.MonkeyPatch, method: str, word: str, *, fails: bool = False) -> list[int]:
    """How many programs with that word in what they were told run whenever SQLite's store does this; it fails then, if told so."""
    seen: list[int] = []
    real = getattr(SqliteStore, method)

    def watched(*given: Any) -> Any:
        deadline = time.monotonic() + 10
        while not (found := running(word)) and time.monotonic() < deadline:
            time.sleep(0.02)
        seen.append(len(found))
        if fails:
            raise Failed("this store fails")
        return real(*given)

    monkeypatch.setattr(SqliteStore, method, watched)
    return seen


def open_as_nobody(path: Path) -> None:
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(PermissionError):
            path.read_text()


def test_other_stores_are_dumped_while_pg_dump_is_at_work(tmp_path: Path, newest: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with laboratory(tmp_path, newest, SLOW) as lab:
        seen = seen_while(monkeypatch, "dump", "--snapshot=")
        entry = take_set(lab.context, purpose="backup")
        assert seen[0] > 0
        assert entry.manifest is not None
        assert entry.manifest.stores["rows"].seconds >= 1.5, "the time from its begin, beside the others"


def test_a_store_that_fails_meanwhile_ends_pg_dump_and_nothing_is_published(
    tmp_path: Path, newest: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with laboratory(tmp_path, newest, FOREVER) as lab:
        assert seen_while(monkeypatch, "dump", "--snapshot=", fails=True) == []
        with pytest.raises(Failed, match="this store fails"):
            take_set(lab.context, purpose="backup")
        assert running("--snapshot=") == []
        assert lab.context.sets.entries() == []
        assert list(lab.context.sets.path.glob(".*.partial")) == []


def test_other_stores_are_staged_while_pg_restore_is_at_work(tmp_path: Path, newest: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with laboratory(tmp_path, newest, SLOW, "pg_restore", "--use-list") as lab:
        entry = take_set(lab.context, purpose="backup")
        lab.write("two")
        seen = seen_while(monkeypatch, "stage", "--use-list=")
        restore(lab.context, RestoreRequest(set=entry.id))
        assert seen[0] > 0
        assert lab.all_hold("one")


def test_a_store_that_fails_meanwhile_ends_pg_restore_and_nothing_live_is_touched(
    tmp_path: Path, newest: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with laboratory(tmp_path, newest, FOREVER, "pg_restore", "--use-list") as lab:
        entry = take_set(lab.context, purpose="backup")
        lab.write("two")
        before = newest.ask("select string_agg(datname, ' ' order by datname) from pg_database")
        seen = seen_while(monkeypatch, "stage", "--use-list=", fails=True)
        with pytest.raises(Failed, match=r"this store fails.*the live data was not touched"):
            restore(lab.context, RestoreRequest(set=entry.id))
        assert seen[0] > 0
        assert running("--use-list=") == []
        assert newest.ask("select string_agg(datname, ' ' order by datname) from pg_database") == before, "the database beside is dropped"
        assert lab.all_hold("two")


def test_a_database_is_restored_where_its_servers_user_reaches_nothing_of_ours(tmp_path: Path, newest: Server) -> None:
    """What pg_restore needs beside the archive is handed to it; it once was a file in the scratch directory."""
    with laboratory(tmp_path, newest, 'exec {real} "$@"') as lab:
        entry = take_set(lab.context, purpose="backup")
        lab.write("two")
        lab.context.stores["rows"]._declared = newest.declared(lab.context.stores["rows"]._declared.database)  # type: ignore[attr-defined]
        lab.context.scratch.chmod(0o700)
        (lab.context.scratch / "list").write_text("as it was handed over once")
        assert in_child(lambda: open_as_nobody(lab.context.scratch / "list")) == 0, "the control: another user cannot read it there"
        restore(lab.context, RestoreRequest(set=entry.id))
        assert lab.all_hold("one")
