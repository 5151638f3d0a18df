"""Twenty hosts of which three are gone and one hangs: the others finish, and all twenty stand in the result."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.deploys import Deployed, begin_deploy, run_deploy
from tests.harness.guest import Guest, booted

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]
_STACK = "stack: notes\nstores: {papers: {kind: files, path: /srv/notes/papers}}\n"
_PATIENCE = 12


class Fleet:
    """Seventeen names for one server, each with a state and a repository of its own, one of which may hang, and three that nobody has."""

    def __init__(self, guest: Guest, control: Path) -> None:
        self.guest = guest
        self.inventory = control / "inventory.py"
        self._control = control
        key = (guest.lab / "servers" / guest.name / "known_hosts").read_text().split(" ", 1)[1]
        self._key = key
        self._known = control / "known_hosts"
        self.well = [f"well-{number:02d}" for number in range(16)]
        self.gone = [f"gone-{number}" for number in range(3)]

    def declare(self, *, hangs: bool = False) -> None:
        self._known.write_text(f"{self.guest.address} {self._key}")
        hosts = [(name, self._data(name)) for name in self.well]
        hosts += [(name, {**self._data(name), "ssh_hostname": "127.0.0.1", "ssh_port": 9}) for name in self.gone]
        hosts += [("hangs", {**self._data("hangs"), **({"storekeeper_program": "/opt/hang"} if hangs else {})})]
        self.inventory.write_text(f"hosts = {hosts!r}\n")

    def _data(self, name: str) -> dict[str, Any]:
        return {
            "ssh_hostname": self.guest.address,
            "ssh_user": "root",
            "ssh_key": str(self.guest.lab / "id_ed25519"),
            "ssh_known_hosts_file": str(self._known),
            "ssh_strict_host_key_checking": "yes",
            "storekeeper_config": f"/srv/{name}/etc",
            "storekeeper_state": f"/srv/{name}/state",
            "storekeeper_repository": f"/srv/{name}/sets",
            "storekeeper_cron": f"/srv/{name}/cron.d",
            "storekeeper_patience": _PATIENCE,
            "storekeeper_stacks": {"notes": _STACK},
        }

    def deploy(self, which: str, *words: str, **data: str) -> Deployed:
        return run_deploy(self.inventory, which, *words, **data)

    def begin(self, which: str, *words: str, **data: str) -> subprocess.Popen[str]:
        """Start a deploy; the caller waits for it, or kills it."""
        return begin_deploy(self.inventory, which, *words, **data)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with booted("bookworm-py", name="fleet", number=83) as guest:
        fleet = Fleet(guest, tmp_path_factory.mktemp("control"))
        guest.run("mkdir -p /srv/notes/papers && echo hello >/srv/notes/papers/a")
        fleet.declare()
        first = fleet.deploy("site", "--limit", "well-00")
        assert first.code == 0, first.said
        assert fleet.deploy("site").code == 1, "three are gone"
        assert fleet.deploy("backup", "--limit", "well-*", "--limit", "hangs").code == 0
        yield fleet


@pytest.mark.fault("G1", "G5")
def test_twenty_hosts_stand_in_the_result_and_since_when_the_dead_are_silent(fleet: Fleet, tmp_path: Path) -> None:
    page, document = tmp_path / "report.html", tmp_path / "report.json"
    assert fleet.deploy("status", report=str(page)).code == 1
    before = json.loads(document.read_text())["hosts"]
    assert sorted(name for name, each in before.items() if each["answers"]) == sorted(["hangs", *fleet.well])

    script = fleet.guest.lab / "servers" / fleet.guest.name / "root/opt/hang"
    script.write_text("#!/bin/sh\nsleep 600\n")
    script.chmod(0o755)
    fleet.declare(hangs=True)
    began = time.monotonic()
    again = fleet.deploy("status", report=str(page))
    assert time.monotonic() - began < _PATIENCE + 30, "who hangs is cut off at the limit"
    assert again.code == 1
    after = json.loads(document.read_text())["hosts"]
    assert sorted(after) == sorted(["hangs", *fleet.gone, *fleet.well])
    assert sorted(name for name, each in after.items() if each["answers"]) == sorted(fleet.well)
    assert after["hangs"]["heard"] == before["hangs"]["heard"]
    assert all(after[name]["heard"] is None for name in fleet.gone)
    said = page.read_text()
    assert said.count("no earlier report has heard of it") == 3
    assert said.count("it last answered 0 min ago") == 1


@pytest.mark.control("G1")
def test_control_the_table_that_pyinfra_prints_leaves_out_who_is_gone(fleet: Fleet) -> None:
    fleet.declare()
    done = fleet.deploy("list")
    assert done.code == 1
    results = done.said[done.said.index("--> Results") :]
    assert re.search(r"Sets of notes +17 +17 ", results), results
    assert "gone" not in results


@pytest.mark.control("G5")
def test_control_without_a_limit_one_that_hangs_holds_up_the_report(fleet: Fleet, tmp_path: Path) -> None:
    fleet.declare(hangs=True)
    waiting = fleet.begin("status", "--limit", "hangs", report=str(tmp_path / "report.html"), storekeeper_patience="600")
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(_PATIENCE + 4)
    finally:
        waiting.kill()
        waiting.communicate()
        fleet.guest.run("pkill -f /opt/hang", check=False)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.fault("G5")
def test_a_run_again_works_on_the_failed_alone(fleet: Fleet) -> None:
    fleet.declare()
    failed = fleet.deploy("backup", within="26h")
    assert failed.code == 1
    assert failed.changed == [], "all that could be reached have a set of today"
