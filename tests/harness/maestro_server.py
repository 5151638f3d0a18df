"""Maestro at its real size on a booted server: 20,000 documents, a user of its own, a backend that has its stores open.

What takes long is made once and kept below .cache/lab, as the bases of guests are: the application's data, made by the real Chroma, and its
virtual environment on Debian 12.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness import chroma, maestro
from tests.harness.deploys import CHECKOUT, Deployed
from tests.harness.maestro import COLLECTIONS, FOLDERS, Document, Maestro
from tests.harness.target import PROGRAM, Target

DOCUMENTS = 20_000
NUMBERED = Document("0042", "2")  # what looks like a number, and is none
HOME = "/srv/maestro"
SERVICE = "maestro-backend"
_PYTHON = f"{HOME}/venv/bin/python"
_UNIT = f"""[Service]
User=maestro
Environment=HOME={HOME} ANONYMIZED_TELEMETRY=False
ExecStart={_PYTHON} {HOME}/backend.py
"""
# It holds what the application holds, and says once a second what it sees.
_BACKEND = f"""
import json, sqlite3, time
import chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient("{HOME}/ai_researcher/data/vector_store", settings=Settings(anonymized_telemetry=False))
held = [client.get_collection(name, embedding_function=None) for name in {COLLECTIONS!r}]
rows = sqlite3.connect("{HOME}/data/maestro.db")
while True:
    seen = [rows.execute("select count(*) from documents").fetchone()[0], *(each.count() for each in held)]
    with open("{HOME}/sees", "w") as file:
        file.write(json.dumps(seen))
    time.sleep(1)
"""
_DIGEST = """
import hashlib, os, sqlite3

def told(words):
    return hashlib.sha256(json.dumps(words, default=str).encode()).hexdigest()

def rows(path):
    database = sqlite3.connect(path)
    tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table' order by name")]
    return told([(name, database.execute(f"select rowid, * from {name} order by rowid").fetchall()) for name in tables])

def files(folder):
    found = hashlib.sha256()
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        status = entry.stat(follow_symlinks=False)
        with open(entry.path, "rb") as file:
            found.update(told([entry.name, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, file.read().hex()]).encode())
    return found.hexdigest()

def chunks(name):
    kept, found = collection(name), hashlib.sha256()
    ids = sorted(kept.get(include=[])["ids"])
    for start in range(0, len(ids), 10_000):
        some = kept.get(ids=ids[start:start + 10_000], include=["documents", "metadatas", "embeddings", "uris"])
        each = zip(some["ids"], some["documents"], some["metadatas"], some["uris"], some["embeddings"].tolist())
        found.update(told(sorted((id, text, sorted(data.items()), uri, vector) for id, text, data, uri, vector in each)).encode())
    return [len(ids), found.hexdigest()]

say({
    "main": rows(arguments["home"] + "/data/maestro.db"),
    "metadata": rows(arguments["home"] + "/ai_researcher/data/processed/metadata.db"),
    "papers": {folder: files(arguments["home"] + "/ai_researcher/data/" + folder) for folder in arguments["folders"]},
    "vectors": {name: chunks(name) for name in arguments["collections"]},
})
"""


class MaestroServer:
    """The server with Maestro's data on it. `application` is that data as this machine sees it, for planting before anything runs."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.guest = target.guest
        self.root = self.guest.lab / "servers" / self.guest.name / "root"
        self.application = Maestro(self.root / HOME.lstrip("/"))

    def deploy(self, which: str, *words: str, **data: str) -> Deployed:
        """A deploy that must succeed."""
        done = self.target.deploy(which, *words, **data)
        assert done.code == 0, done.said
        return done

    def type(self, *words: str) -> str:
        """What a verb of the program says on the server, however it ends."""
        return self.guest.run(shlex.join([PROGRAM, "--quiet", *words]), check=False).stdout

    def install(self, plant: Callable[[], None]) -> None:
        """The data, with what is planted in it, and the backend as a unit that runs."""
        home = self.application.root
        home.mkdir(parents=True, exist_ok=True)
        _copied(made_data(self.guest.lab), home)
        plant()
        self._environment()
        (home / "backend.py").write_text(_BACKEND, encoding="utf-8")
        (self.root / f"etc/systemd/system/{SERVICE}.service").write_text(_UNIT, encoding="utf-8")
        self.guest.run(f"chown -R maestro:maestro {HOME} && systemctl daemon-reload")
        self.start()

    def start(self) -> None:
        self.guest.run(f"rm -f {HOME}/sees; systemctl start {SERVICE}")
        self.sees()

    def stop(self) -> None:
        self.guest.run(f"systemctl stop {SERVICE}")

    def sees(self) -> list[int]:
        """Documents, and chunks of both collections, as the running backend has just seen them."""
        waiting = f"rm -f {HOME}/sees; for n in $(seq 200); do test -s {HOME}/sees && exec cat {HOME}/sees; sleep 0.1; done; exit 1"
        seen: list[int] = json.loads(self.guest.run(waiting).stdout)
        return seen

    def execute(self, code: str, **arguments: Any) -> list[Any]:
        """Code on the application's own Chroma client, as the application's user, which is stopped meanwhile."""
        words = chroma.argv_of(Path(f"{HOME}/ai_researcher/data/vector_store"), code, arguments)[1:]
        typed = shlex.join(["runuser", "-u", "maestro", "--", "env", "-C", HOME, f"HOME={HOME}", _PYTHON, *words])
        return [json.loads(line) for line in self.guest.run(typed).stdout.splitlines()]

    def digests(self) -> dict[str, Any]:
        """What every store holds, by store: rows with their rowid, files with owner, mode and time, chunks as Chroma answers them."""
        (found,) = self.execute(_DIGEST, home=HOME, folders=list(FOLDERS), collections=COLLECTIONS)
        return dict(found)

    def strangers(self) -> str:
        """What stands among the application's data and is not its user's, but for directories of what a repair has taken."""
        return self.guest.run(f"find {HOME}/data {HOME}/ai_researcher -name '.storekeeper-*' -prune -o -not -user maestro -print").stdout

    def _environment(self) -> None:
        wanted = _locked("chromadb")
        kept = self.guest.lab / f"chromadb-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
        if not kept.exists():
            (self.root / "root/wanted.txt").write_text(wanted, encoding="utf-8")
            install = "pip install --quiet --no-deps --require-hashes -r /root/wanted.txt"
            self.guest.run(f"python3 -m venv {HOME}/venv && {HOME}/venv/bin/{install}")
            _keep(self.application.root / "venv", kept)
        else:
            _copied(kept, self.application.root / "venv")


def made_data(lab: Path) -> Path:
    """20,000 complete documents of three users in every store, made once."""
    source = f"{DOCUMENTS} {NUMBERED} {maestro.SCHEMA} {inspect.getsource(Maestro)}"
    kept = lab / f"maestro-{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    if not kept.exists():
        making = Maestro(lab / f".maestro-{os.getpid()}")
        making.make([*maestro.documents(DOCUMENTS - 1), NUMBERED])
        making.root.rename(kept)
    return kept


def _locked(package: str) -> str:
    """The lines of the lock file for a package and all that it needs, with their hashes."""
    text = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")
    blocks = re.findall(r"^(?=[a-z0-9])(?:.+\n?)(?:^ +.*\n?)*", text, re.MULTILINE)
    wanted = {package}
    while found := {name for each in blocks if (name := each.partition("==")[0]) not in wanted and _parents(each) & wanted}:
        wanted |= found
    return "".join(each for each in blocks if each.partition("==")[0] in wanted)


def _parents(block: str) -> set[str]:
    """Whom a block of the lock file says it is there for."""
    _, _, via = block.partition("# via")
    return set(re.findall(r"[a-z0-9][a-z0-9._-]*", via.replace("#", " ")))


def _copied(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(target)], check=True)


def _keep(source: Path, kept: Path) -> None:
    making = kept.with_name(f".{kept.name}-{os.getpid()}")
    shutil.rmtree(making, ignore_errors=True)
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(making)], check=True)
    making.rename(kept)
