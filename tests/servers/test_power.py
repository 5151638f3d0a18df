"""The power of a server goes while a deploy works on it: after it is back no set is invalid, no state is mixed, and no hand is needed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.campaign import Campaign
from tests.harness.guest import booted
from tests.harness.target import PROGRAM, Target

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

_STACK = """stack: notes
stores:
  rows: {kind: sqlite, path: /srv/notes/notes.db}
  papers: {kind: files, path: /srv/notes/papers}
"""
# Every row and every paper of one generation says so: a mixture shows.
_FILL = """
import pathlib, shutil, sqlite3, sys
generation = int(sys.argv[1])
place = pathlib.Path("/srv/notes")
(place / "papers").mkdir(parents=True, exist_ok=True)
rows = sqlite3.connect(place / "notes.db")
rows.execute("create table if not exists notes (id integer primary key, generation integer, said text)")
rows.execute("delete from notes")
rows.executemany("insert into notes (generation, said) values (?, ?)", [(generation, "x" * 500) for n in range(20000)])
rows.commit()
for n in range(30):
    (place / "papers" / f"{n}.bin").write_bytes(bytes([generation % 256]) * (1 << 20))
"""
_READ = """
import json, pathlib, sqlite3
place = pathlib.Path("/srv/notes")
rows = [each for each, in sqlite3.connect(place / "notes.db").execute("select distinct generation from notes")]
papers = sorted({byte for paper in (place / "papers").iterdir() for byte in set(paper.read_bytes())})
print(json.dumps({"rows": rows, "papers": papers}))
"""


class Server(Target):
    def fill(self, generation: int) -> None:
        self.said("python3", "/root/fill.py", str(generation))

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.said("python3", "/root/read.py"))
        return found

    def type(self, *words: str) -> tuple[int, dict[str, Any]]:
        done = self.guest.run(" ".join([PROGRAM, "--json", *words]), check=False)
        return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with booted("bookworm-py", name="power", number=84) as guest:
        server = Server(guest, tmp_path_factory.mktemp("control"), storekeeper_stacks={"notes": _STACK})
        for name, text in (("fill", _FILL), ("read", _READ)):
            (guest.lab / "servers" / guest.name / f"root/root/{name}.py").write_text(text)
        server.fill(1)
        done = server.deploy("site")
        assert done.code == 0, done.said
        assert server.deploy("backup").code == 0
        yield server


@pytest.mark.fault("E-2")
def test_the_power_goes_at_any_moment_of_backup_and_restore(server: Server, campaign: Campaign) -> None:
    count, chance = campaign.trials(3, 20), random.Random(20)
    host = server.said("uname", "-n")
    for number in range(count):
        generation = number + 2
        server.fill(generation)
        kept = len(server.type("list", "notes")[1]["result"]["sets"])
        words = ["backup", "notes"] if number % 2 else ["restore", "notes", "latest", "--confirm", f"notes@{host}"]
        server.guest.run(f"nohup {PROGRAM} --quiet {' '.join(words)} --job >/dev/null 2>&1 &")
        time.sleep(0.4 + chance.random() * 2.5)
        server.guest.power_off()
        server.guest.power_on()

        backed = server.deploy("backup")
        assert backed.code == 0, backed.said
        found = server.read()
        assert len(found["rows"]) == 1, (number, found)
        assert found["papers"] == [found["rows"][0] % 256], (number, found)
        listed = server.type("list", "notes")[1]["result"]["sets"]
        assert len(listed) > kept
        assert {each["state"] for each in listed} <= {"verified", "proven"}
        assert server.type("verify", "notes", "--all")[0] == 0
    campaign.found(count, "power cuts of a server in the middle of backup and restore", "0 invalid sets, 0 mixed states, 0 manual steps")
