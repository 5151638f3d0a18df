"""A bad wire between this machine and a server: slow, silent, reset, and gone while a job runs. Nothing hangs, nothing runs twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from operations.wire import IDLE_S, INTERVAL_S, PROBES
from tests.harness.campaign import Campaign
from tests.harness.deploys import begin_deploy, ended
from tests.harness.guest import Guest, booted
from tests.harness.target import PROGRAM, Target
from tests.harness.wire import Wire, wire

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

_GONE_S = IDLE_S + INTERVAL_S * PROBES  # after that a silent host is given up
_STACK = """stack: notes
stores:
  rows: {kind: sqlite, path: /srv/notes/notes.db}
  papers: {kind: files, path: /srv/notes/papers}
"""
_FILL = """
import os, pathlib, sqlite3
place = pathlib.Path("/srv/notes")
(place / "papers").mkdir(parents=True)
rows = sqlite3.connect(place / "notes.db")
rows.execute("create table notes (id integer primary key, said text)")
rows.executemany("insert into notes (said) values (?)", [(f"thought {n}",) for n in range(1000)])
rows.commit()
for n in range(40):
    (place / "papers" / f"{n}.bin").write_bytes(os.urandom(1 << 20))
"""


class Server(Target):
    """A server with a stack of forty megabytes, reached over a wire."""

    def over(self, the_wire: Wire) -> None:
        """Reach it over this wire from now on."""
        known = self.guest.lab / "servers" / self.guest.name / "known_hosts"
        key = known.read_text().split(" ", 1)[1]
        hosts = self.control / "known_hosts"
        hosts.write_text(f"[127.0.0.1]:{the_wire.port} {key}")
        self.declare(
            ssh_hostname="127.0.0.1",
            ssh_port=the_wire.port,
            ssh_known_hosts_file=str(hosts),
            storekeeper_stacks={"notes": _STACK},
        )

    def begin(self, which: str, **data: str) -> subprocess.Popen[str]:
        """Start a deploy; the caller waits for it, or kills it."""
        return begin_deploy(self.inventory, which, **data)

    def ssh(self, command: str, *options: str, port: int) -> subprocess.Popen[bytes]:
        """A command over plain ssh through a wire."""
        hosts = f"UserKnownHostsFile={self.control / 'known_hosts'}"
        words = ["ssh", "-p", str(port), "-i", str(self.guest.lab / "id_ed25519"), "-o", hosts, "-o", "BatchMode=yes", *options]
        return subprocess.Popen([*words, "root@127.0.0.1", command], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def records(self) -> list[dict[str, Any]]:
        found = self.guest.run(f"{PROGRAM} jobs notes --json", check=False).stdout
        jobs: list[dict[str, Any]] = json.loads(found)["result"]["jobs"]
        return jobs

    def job_files(self) -> set[str]:
        """The names of the records as they stand on the server's disk, seen from this machine without a wire."""
        folder = self.guest.lab / "servers" / self.guest.name / "root/var/lib/storekeeper/jobs/notes"
        return {path.name for path in folder.glob("*.json")}

    def has_heard(self, job: dict[str, Any]) -> bool:
        """Whether its answer has reached somebody."""
        return self.guest.run(f"test -e {job['path'].removesuffix('.json')}.heard", check=False).returncode == 0

    def wait_until_nothing_runs(self) -> None:
        deadline = time.monotonic() + 120
        while any(job["outcome"] is None for job in self.records()):
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with booted("bookworm-py", name="wire", number=82) as guest:
        server = Server(guest, tmp_path_factory.mktemp("control"), storekeeper_stacks={"notes": _STACK})
        _fill(guest)
        done = server.deploy("site")
        assert done.code == 0, done.said
        assert server.deploy("backup").code == 0
        yield server


def _fill(guest: Guest) -> None:
    script = guest.lab / "servers" / guest.name / "root/root/fill.py"
    script.write_text(_FILL)
    guest.run("python3 /root/fill.py")


@pytest.mark.fault("G4")
def test_a_slow_wire_works(server: Server) -> None:
    with wire(server.guest.address, rtt_ms=300, rate=20_000) as slow:
        server.over(slow)
        done = server.deploy("backup")
    assert done.code == 0, done.said
    assert "notes: backup: " in done.said, "what it does is told meanwhile"


@pytest.mark.control("G4")
def test_control_who_is_asked_to_answer_at_once_is_given_up_on_a_slow_wire(server: Server, tmp_path: Path) -> None:
    with wire(server.guest.address, rtt_ms=100, rate=1000) as slow:
        server.over(slow)
        done = server.deploy("status", report=str(tmp_path / "report.html"), storekeeper_patience="1")
    assert done.code == 1
    assert "could not be read" in (tmp_path / "report.html").read_text()


@pytest.mark.fault("G3")
@pytest.mark.control("G3")
def test_a_wire_that_is_silent_for_a_while_goes_on_and_who_has_less_patience_is_cut_off(server: Server) -> None:
    with wire(server.guest.address) as bad:
        server.over(bad)
        hasty = server.ssh("sleep 60", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3", port=bad.port)
        before = len(server.records())
        deploy = server.begin("backup")
        _wait_for(bad, 20_000, deploy)
        bad.cut()
        time.sleep(20)
        assert hasty.wait(5) == 255
        bad.mend()
        done = ended(deploy)
    assert done.code == 0, done.said
    assert len(server.records()) == before + 1


@pytest.mark.fault("G2")
@pytest.mark.control("G2")
def test_a_wire_that_stays_silent_is_given_up_and_the_job_ends_and_is_found(server: Server) -> None:
    """The server goes silent for real here, below TCP: a proxy would still acknowledge what is sent. pyinfra alone would wait on."""
    server.declare(storekeeper_stacks={"notes": _STACK})
    before = {job["id"] for job in server.records()}
    alone = subprocess.Popen(
        [f"{sys.prefix}/bin/pyinfra", "-y", str(server.inventory), "exec", "--", "touch /tmp/begun; sleep 8"],
        cwd=server.control,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _wait_until(lambda: server.guest.run("test -e /tmp/begun", check=False).returncode == 0)
    known = server.job_files()
    deploy = server.begin("backup")
    _wait_until(lambda: server.job_files() != known)
    server.guest.cut()
    began = time.monotonic()
    try:
        done = ended(deploy)
        gave_up = time.monotonic() - began
        assert alone.poll() is None, "without the watch over the wire it is waited for what ended long ago"
    finally:
        alone.kill()
        alone.wait()
        server.guest.mend()
    assert done.code == 1
    assert gave_up < _GONE_S * 3, gave_up
    server.wait_until_nothing_runs()
    (job,) = [job for job in server.records() if job["id"] not in before]
    assert job["outcome"] == "ok"
    again = server.deploy("backup")
    assert again.code == 0, again.said
    assert {job["id"] for job in server.records()} - before == {job["id"]}, "its answer was found, and nothing ran twice"


@pytest.mark.fault("G2")
def test_the_wire_cut_and_the_controller_killed_at_any_moment_leave_jobs_that_end_and_are_found(server: Server, campaign: Campaign) -> None:
    """A third of them while the wire is set up or nothing has begun yet, the others in the middle of the job."""
    count, chance, lost = campaign.trials(5, 50), random.Random(2), 0
    host = server.guest.run("uname -n").stdout.strip()
    for number in range(count):
        verb, data = (("backup", {}), ("restore", {"stack": "notes", "set": "latest", "confirm": f"notes@{host}"}))[number % 2]
        with wire(server.guest.address) as bad:
            server.over(bad)
            before = {job["id"] for job in server.records()}
            known = server.job_files()
            deploy = server.begin(verb, **data)
            if number % 3 == 2:
                _wait_for(bad, chance.randrange(1_000, 12_000), deploy)
            else:
                _wait_until(lambda known=known: server.job_files() != known)
                time.sleep(chance.random() * 0.6)
            if chance.random() < 0.5:
                bad.reset()
            else:
                deploy.kill()
            ended(deploy)
        server.wait_until_nothing_runs()
        was_heard = any(server.has_heard(job) for job in server.records() if job["id"] not in before)
        server.declare(storekeeper_stacks={"notes": _STACK})
        again = server.deploy(verb, **data)
        assert again.code == 0, again.said
        new = [job for job in server.records() if job["id"] not in before]
        assert [job["outcome"] for job in new] == ["ok"] * (1 + was_heard), (number, verb, new)
        lost += not was_heard
    assert lost >= count // 3, "most answers had been heard before the wire was cut: this proves little"
    campaign.found(count, "wires cut and controllers killed in the middle of backup and restore", "0 runs twice, 0 not found again")


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _wait_for(the_wire: Wire, passed: int, deploy: subprocess.Popen[str]) -> None:
    """Until so many bytes went over the wire, or the deploy has ended before."""
    while the_wire.passed() < passed and deploy.poll() is None:
        time.sleep(0.01)
