"""Makes the sets, journals and records in tests/faults/formats/, which every later version of the program must read.

As root, with a host name and a place that are nobody's, once for a release that changes a format:

    unshare --uts --mount sh -c 'hostname keeper; mount -t tmpfs -o mode=755 tmpfs /srv; exec "$@"' sh \
        python -m tests.harness.formats tests/faults/formats/N

`whole` has one set of all four kinds, verified, proven and pinned. `small` has a database and a tree of files with two sets, a
restore that ended, and one that was killed before its first switch.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from storekeeper.cli.main import main as storekeeper
from storekeeper.host import clock
from storekeeper.restore.journal import Journal
from tests.harness import chroma
from tests.harness.postgresql import Server, start_server
from tests.harness.program import Program
from tests.harness.sets import START
from tests.harness.stacks import in_child, killing

MAJOR = 16
PLACE = Path("/srv")
_CHROMA = "papers = collection('papers', sync=50); load(papers, 120, 4); say(papers.count())"
_ROWS = """
create table documents (id integer generated always as identity primary key, title text not null, added timestamptz not null);
insert into documents (title, added)
  select 'title ' || n, timestamptz '2025-01-09 03:00+00' + n * interval '1 hour' from generate_series(1, 60) n;
create view titles as select title from documents;
"""


def make(folder: Path) -> None:
    """Both, below a folder that does not exist yet."""
    folder.mkdir()
    with start_server(PLACE, MAJOR) as server:
        _whole(PLACE / "whole", server)
    _small(PLACE / "small")
    for name, parts in (("whole", ("sets", "state")), ("small", ("sets", "state", "live"))):
        for part in parts:
            shutil.copytree(PLACE / name / part, folder / name / part, symlinks=True)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # all that git keeps


def _whole(root: Path, server: Server) -> None:
    program = Program(root)
    program.declare_small()
    server.run("create database app")
    server.run(_ROWS, "app")
    chroma.execute(root / "live/vectors", _CHROMA)
    text = (program.config / "stacks/demo.yml").read_text(encoding="utf-8")
    text += f"  vectors: {{kind: chroma, path: {root}/live/vectors}}\n"
    text += f"  records: {{kind: postgresql, database: app, user: postgres, host: {server.socket}, programs: {server.programs}}}\n"
    program.declare(text)
    for words in (("backup", "demo"), ("verify", "demo"), ("prove", "demo"), ("pin", "demo", "latest")):
        _run(program, *words)


def _small(root: Path) -> None:
    """The live directory is that of before the interrupted restore: another title, another text."""
    program = Program(root)
    program.declare_small()
    restore = ("restore", "demo", "latest", "--yes", "--nobody-uses", "papers", "--nobody-uses", "main")
    for words in (("backup", "demo"), restore):
        _run(program, *words)
    (root / "live/demo/papers/a.txt").write_text("written since", encoding="utf-8")

    def killed() -> None:
        Journal.write = killing(3, after=True)  # type: ignore[method-assign]
        storekeeper(["--config", str(program.config), *restore])

    if in_child(killed) != -signal.SIGKILL:
        raise RuntimeError("the restore came to its end")


def _run(program: Program, *words: str) -> None:
    """In this process, whose clock can be set: sets of the machine's today would be dated after now elsewhere."""
    code = storekeeper(["--config", str(program.config), *words])
    if code not in (0, 4):
        raise RuntimeError(f"{words} ended with {code}")


if __name__ == "__main__":
    began = datetime.now(UTC)
    clock.now = lambda: START + (datetime.now(UTC) - began)
    os.umask(0o022)
    make(Path(sys.argv[1]).absolute())
