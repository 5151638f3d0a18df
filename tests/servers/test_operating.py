"""Two servers as the page on deploys has them: a set of one becomes the other's data, and a release is gone back from."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness.deploys import CHECKOUT, Deployed, environment, run_deploy
from tests.harness.guest import Guest, booted
from tests.harness.markdown import blocks
from tests.harness.target import PROGRAM

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

_PAGE = CHECKOUT / "docs/deploys.md"
_STACK = """stack: maestro
stores:
  main: {kind: sqlite, path: /srv/maestro/main.db}
  papers: {kind: files, path: /srv/maestro/papers}
"""
_FILL = """
import os, pathlib, sqlite3
place = pathlib.Path("/srv/maestro")
(place / "papers/deep").mkdir(parents=True, exist_ok=True)
rows = sqlite3.connect(place / "main.db")
rows.execute("create table if not exists documents (id integer primary key, said text)")
rows.executemany("insert into documents (said) values (?)", [(os.uname().nodename,) for n in range({rows})])
rows.commit()
for n in range(20):
    (place / f"papers/deep/{{n}}.bin").write_bytes(os.urandom(100_000))
"""
_DIGEST = "cd /srv/maestro && sqlite3 main.db .dump | sha256sum && find papers -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum"


class Pair:
    """Production on Debian 12, and a standby on Debian 13 on which the same stack is declared."""

    def __init__(self, guests: dict[str, Guest], control: Path) -> None:
        self.guests = guests
        self.inventory = control / "inventory.py"
        hosts = [(name, self._data(guest)) for name, guest in guests.items()]
        self.inventory.write_text(f"hosts = {hosts!r}\n", encoding="utf-8")

    def _data(self, guest: Guest) -> dict[str, Any]:
        return {
            "ssh_hostname": guest.address,
            "ssh_user": "ops",
            "ssh_key": str(guest.lab / "id_ed25519"),
            "ssh_known_hosts_file": str(guest.lab / "servers" / guest.name / "known_hosts"),
            "storekeeper_sudo": True,
            "storekeeper_users": {"maestro": {}},
            "storekeeper_stacks": {"maestro": _STACK},
        }

    def deploy(self, which: str, *words: str, **data: str) -> Deployed:
        return run_deploy(self.inventory, which, *words, **data)

    def typed(self, command: str) -> Deployed:
        """A line of the page, as it stands there."""
        words = command.replace("pyinfra inventories/production.py", f'"{sys.prefix}/bin/pyinfra" -y "{self.inventory}"')
        done = subprocess.run(["bash", "-c", words], cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=False)
        return Deployed(done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr))

    def holds(self, name: str) -> str:
        return self.guests[name].run(_DIGEST).stdout

    def sets(self, name: str) -> list[dict[str, Any]]:
        said = self.guests[name].run(f"{PROGRAM} --json list maestro").stdout
        found: list[dict[str, Any]] = json.loads(said)["result"]["sets"]
        return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as until_done:
        guests = {
            "prod-ai-1": until_done.enter_context(booted("bookworm", name="prod-ai-1", number=88)),
            "standby-1": until_done.enter_context(booted("trixie", name="standby-1", number=89)),
        }
        pair = Pair(guests, tmp_path_factory.mktemp("control"))
        for deploy in ("provision", "site"):
            done = pair.deploy(deploy)
            assert done.code == 0, done.said
        for name, guest in guests.items():
            (guest.lab / "servers" / name / "root/root/fill.py").write_text(_FILL.format(rows=500 if name == "prod-ai-1" else 3))
            guest.run("apt-get install -y -q sqlite3 >/dev/null 2>&1; python3 /root/fill.py")
        done = pair.deploy("backup", "--limit", "prod-ai-1")
        assert done.code == 0, done.said
        yield pair


def _commands(about: str) -> list[str]:
    return [line for block in blocks(_PAGE, "console") for line in block.splitlines() if about in line]


def test_a_command_that_is_aimed_at_another_host_changes_nothing(pair: Pair) -> None:
    before = pair.holds("standby-1")
    refused = pair.deploy("restore", "--limit", "standby-1", stack="maestro", **{"from": "prod-ai-1"}, confirm="maestro@prod-ai-1")
    assert refused.code == 1
    assert "confirm names maestro@prod-ai-1, this is maestro@standby-1" in refused.said
    assert pair.sets("standby-1") == [], "no set was brought"
    unknown = pair.deploy("restore", "--limit", "standby-1", stack="maestro", **{"from": "prod-ai-2"}, confirm="maestro@standby-1")
    assert unknown.code == 1
    assert "prod-ai-2 is no other host of this inventory; there is prod-ai-1" in unknown.said
    assert pair.holds("standby-1") == before


def test_a_standby_is_built_of_the_set_of_another_host_as_the_page_says(pair: Pair) -> None:
    plan, go = _commands("from=")
    before, live = pair.holds("standby-1"), pair.holds("prod-ai-1")
    planned = pair.typed(plan)
    assert planned.code == 0, planned.said
    assert re.search(r"main +documents +3 +500", planned.said)
    assert pair.holds("standby-1") == before

    done = pair.typed(go)
    assert done.code == 0, done.said
    assert pair.holds("standby-1") == live != before
    assert pair.holds("prod-ai-1") == live
    back = pair.deploy("restore", "--limit", "standby-1", stack="maestro", back="yes", confirm="maestro@standby-1")
    assert back.code == 0, back.said
    assert pair.holds("standby-1") == before


def test_a_set_that_came_from_another_host_is_proven_where_it_is(pair: Pair) -> None:
    """What came is decoded and compared before it has a name there; a proof restores it with the other Debian's programs."""
    done = pair.deploy("prove", "--limit", "standby-1", set=next(each["id"] for each in pair.sets("standby-1") if not each["pinned"]))
    assert done.code == 0, done.said
    assert "proven" in {each["state"] for each in pair.sets("standby-1")}


def test_a_release_is_gone_back_to_as_the_page_says(pair: Pair) -> None:
    (command,) = _commands("storekeeper_release=")
    guest = pair.guests["prod-ai-1"]
    current = os.path.basename(guest.run("readlink /opt/storekeeper/current").stdout.strip())
    guest.run(f"cp -a /opt/storekeeper/releases/{current} /opt/storekeeper/releases/0.0.9-before")
    done = pair.typed(re.sub(r"storekeeper_release=\S+", "storekeeper_release=0.0.9-before", command) + " --limit prod-ai-1")
    assert done.code == 0, done.said
    assert guest.run("readlink /opt/storekeeper/current").stdout.strip() == "releases/0.0.9-before"
    assert pair.deploy("site", "--limit", "prod-ai-1").code == 0
    assert guest.run("readlink /opt/storekeeper/current").stdout.strip() == f"releases/{current}"
