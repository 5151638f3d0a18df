"""A set can be checked and restored with what docs/format.md says, and without us."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness import chroma, postgresql
from tests.harness.markdown import blocks
from tests.harness.program import CHECKOUT, Program

FORMAT = CHECKOUT / "docs" / "format.md"
CHECK, SQLITE, FILES, CHROMA, CHROMA_DIGEST, POSTGRESQL = range(6)


class Kept:
    """A set of four real stores, and the environment that the commands of the document are typed in."""

    def __init__(self, root: Path, server: postgresql.Server, set_path: Path) -> None:
        self.live = root / "live"
        self.set = set_path
        self.new = root / "new"
        self.new.mkdir()
        self.server = server

    def type(self, block: int) -> str:
        environment = {
            "PATH": f"{self.server.programs}:{os.environ['PATH']}",
            "SET": str(self.set),
            "NEW": str(self.new),
            "PGHOST": str(self.server.socket),
            "PGPORT": str(self.server.port),
            "PGUSER": postgresql.SUPERUSER,
            "LC_ALL": "C.UTF-8",
        }
        script = blocks(FORMAT, "sh")[block]
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    root = tmp_path_factory.mktemp("by-hand")
    live = root / "live"
    papers = live / "papers"
    (papers / "sub").mkdir(parents=True)
    (papers / "a.pdf").write_bytes(os.urandom(5000))
    (papers / "sub" / "b.txt").write_text("b")
    (papers / "sub" / os.fsdecode(b"\xff")).write_text("no UTF-8")
    (papers / "sub" / "b.txt").chmod(0o640)
    (papers / "link").symlink_to("a.pdf")
    os.link(papers / "a.pdf", papers / "same.pdf")
    with closing(sqlite3.connect(live / "rows.db")) as database, database:
        database.executescript("create table t(a); insert into t values (1), (2), (3);")
    chroma.execute(live / "vectors", "load(collection('papers'), 100, 8)\nsay('done')")
    with postgresql.start_server(major=16) as server:
        server.run("create database app")
        server.run("create table doc as select generate_series(1, 100) as id", "app")
        program = Program(root / "host")
        program.declare(
            f"""stack: demo
stores:
  rows:    {{kind: sqlite, path: {live}/rows.db}}
  papers:  {{kind: files, path: {papers}}}
  vectors: {{kind: chroma, path: {live}/vectors}}
  records: {{kind: postgresql, database: app, user: postgres, host: {server.socket}, port: {server.port}, programs: {server.programs}}}
"""
        )
        taken = program.answer("backup", "demo").document
        assert taken["outcome"] in ("ok", "warning"), taken
        yield Kept(root, server, Path(taken["result"]["set"]["path"]))


def test_a_set_is_checked_by_hand_and_damage_is_found(kept: Kept):
    assert "files are as they were written" in kept.type(CHECK)
    victim = kept.set / "papers" / "content" / "a.pdf"
    whole = victim.read_bytes()
    victim.chmod(0o600)
    try:
        victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(AssertionError, match=r"a\.pdf"):
            kept.type(CHECK)
    finally:
        victim.write_bytes(whole)
    (kept.set / "more").write_text("x")
    with pytest.raises(AssertionError, match="more"):
        kept.type(CHECK)
    (kept.set / "more").unlink()


def test_a_sqlite_store_is_restored_by_hand(kept: Kept):
    assert kept.type(SQLITE).strip() == "ok"
    with closing(sqlite3.connect(kept.new / "rows.db")) as database:
        assert database.execute("select sum(a) from t").fetchone() == (6,)


def test_a_tree_of_files_is_restored_by_hand_with_modes_times_and_links(kept: Kept):
    kept.type(FILES)
    live, restored = kept.live / "papers", kept.new / "papers"
    assert _described(restored) == _described(live)
    assert (restored / "a.pdf").samefile(restored / "same.pdf")


def test_a_chroma_store_is_restored_by_hand(kept: Kept):
    kept.type(CHROMA)
    found = chroma.execute(kept.new / "vectors", "say(len(client.get_collection('papers').get(include=['embeddings'])['embeddings']))")
    assert found[-1] == 100


def test_the_digest_of_a_chroma_store_is_computed_by_hand_from_the_set_and_from_what_was_restored(kept: Kept):
    manifest = json.loads((kept.set / "manifest.json").read_text())
    told = kept.type(CHROMA_DIGEST).split()
    assert [f"sha256:{digest}" for digest in told if digest != "-"] == [manifest["stores"]["vectors"]["digests"]["directory"]]


def test_a_postgresql_store_is_restored_by_hand(kept: Kept):
    kept.type(POSTGRESQL)
    assert kept.server.ask("select sum(id) from doc", "restored") == 5050


def _described(root: Path) -> dict[str, tuple[int, int, bytes | str]]:
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content: bytes | str = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[os.fsdecode(path.relative_to(root))] = (status.st_mode, 0 if path.is_symlink() else status.st_mtime_ns, content)
    return found
