"""The program as people, cron and deploys start it: a process of its own, on a small real stack below one directory."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
ROWS = 40
RESTORE_LATEST = ("restore", "demo", "latest", "--yes", "--nobody-uses", "papers")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one document on standard output; anything else there is a fault."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"expected one document, found {len(lines)} lines:\n{self.out}\n{self.err}"
        found = json.loads(lines[0])
        assert isinstance(found, dict)
        return found

    @property
    def complaints(self) -> list[str]:
        """The sentences of what went wrong, without progress."""
        return [line for line in self.err.splitlines() if line.startswith("storekeeper: ")]


class Program:
    """`storekeeper` on one host: `root` holds its configuration, its state, its repository and the live stores."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "etc"
        self.state = root / "state"
        self.repository = root / "sets"
        (self.config / "stacks").mkdir(parents=True)
        settings = f"repository: {self.repository}\nstate: {self.state}\nscratch: {root}\n"
        (self.config / "storekeeper.yml").write_text(settings, encoding="utf-8")

    def declare(self, text: str, name: str = "demo") -> None:
        (self.config / "stacks" / f"{name}.yml").write_text(text, encoding="utf-8")

    def declare_small(self, name: str = "demo", more: str = "") -> None:
        """A stack of a database and a tree of files, with a little in each."""
        live = self.root / "live" / name
        (live / "papers").mkdir(parents=True)
        (live / "papers/a.txt").write_text("hello", encoding="utf-8")
        with closing(sqlite3.connect(live / "main.db")) as database, database:
            database.execute("create table documents (id integer primary key, title text)")
            database.executemany("insert into documents (title) values (?)", [(f"title {number}",) for number in range(ROWS)])
        stores = f"  main: {{kind: sqlite, path: {live}/main.db}}\n  papers: {{kind: files, path: {live}/papers}}\n"
        self.declare(f"stack: {name}\nstores:\n{stores}{more}", name)

    def database(self, name: str = "demo") -> Path:
        return self.root / "live" / name / "main.db"

    def rows(self, name: str = "demo") -> int:
        with closing(sqlite3.connect(self.database(name))) as database:
            return int(database.execute("select count(*) from documents").fetchone()[0])

    def live(self, name: str = "demo") -> dict[str, Any]:
        """What the stores themselves answer."""
        papers = self.root / "live" / name / "papers"
        found = {str(path.relative_to(papers)): path.read_bytes() for path in papers.rglob("*") if path.is_file()}
        return {"rows": self.rows(name), **found}

    def grow(self, size: int = 400_000) -> None:
        """Papers of that many bytes, which no disk compresses."""
        (self.root / "live/demo/papers/large.bin").write_bytes(os.urandom(size))

    def sets(self) -> list[tuple[int, str]]:
        """Number and state of each."""
        return [(each["sequence"], each["state"]) for each in self.answer("list", "demo").document["result"]["sets"]]

    def newest(self) -> Path:
        return Path(self.answer("list", "demo").document["result"]["sets"][-1]["path"])

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "storekeeper", "--config", str(self.config), *words]

    def start(self, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command; the caller waits for it."""
        return subprocess.Popen(
            self.argv(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env={**_environment(), **(environment or {})},
        )

    def run(self, *words: str, environment: Mapping[str, str] | None = None) -> Ended:
        process = self.start(*words, environment=environment)
        out, err = process.communicate()
        return Ended(process.returncode, out, err)

    def answer(self, *words: str) -> Ended:
        """Run with `--json`."""
        return self.run(*words, "--json")


def hold_to(ended: Ended, code: int, outcome: str, *said: str) -> dict[str, Any]:
    """Exit status, document and sentences of one command; returns the document."""
    document = ended.document
    assert (ended.code, document["outcome"]) == (code, outcome), ended.err
    went_well = outcome in ("ok", "warning")
    told_all_the_same = ("verify", "prove", "check", "history", "examine")
    assert went_well or document["result"] is None or document["verb"] in told_all_the_same, document
    assert not went_well or document["result"] is not None, document
    messages = " | ".join(f"{problem['message']} -> {problem['next']}" for problem in document["problems"])
    assert all(word in messages for word in said), messages
    assert "Traceback" not in ended.err
    return document


def run_plainly(*words: str, environment: Mapping[str, str] | None = None) -> Ended:
    """Run without saying where the configuration is."""
    done = subprocess.run(
        [sys.executable, "-m", "storekeeper", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env={**_environment(), **(environment or {})},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8"}
