"""A booted Debian 12: power that goes, units that are stopped and do not come back, and cron as it really runs. Over SSH, with sudo."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from storekeeper.cli.contract import document_schema
from tests.harness.deploys import Deployed
from tests.harness.guest import Guest, booted
from tests.harness.target import PROGRAM, Target

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]
jsonschema = pytest.importorskip("jsonschema")

_PATIENCE = 90.0  # seconds: cron looks once a minute
_WRITER = """
import os, sqlite3, sys, time
place = sys.argv[1]
with open("/var/log/starts-" + os.path.basename(place), "a") as log:
    log.write(f"{os.getpid()}\\n")
rows = sqlite3.connect(f"{place}/main.db", isolation_level=None, timeout=30)
rows.execute("pragma journal_mode = wal")
rows.execute("create table if not exists notes (id integer primary key, writer integer)")
while True:
    rows.execute("insert into notes (writer) values (?)", (os.getpid(),))
    with open(f"{place}/papers/{time.time_ns()}", "w") as paper:
        paper.write("a paper")
    time.sleep(0.05)
"""
_UNIT = """[Service]
ExecStartPre=/bin/sh -c 'if test -e /run/fail-once; then rm /run/fail-once; exit 1; fi; test ! -e /run/broken'
ExecStart=/usr/bin/python3 /srv/writer.py /srv/{name}
Restart={restart}
RestartSec=100ms
[Install]
WantedBy=multi-user.target
"""
_STACK = """stack: {name}
stores:
  main: {{kind: sqlite, path: /srv/{name}/main.db}}
  papers: {{kind: files, path: /srv/{name}/papers}}
"""


class Server:
    """The guest with the program on it, whose stacks are in the program's default places."""

    def __init__(self, guest: Guest, target: Target) -> None:
        self.guest = guest
        self.target = target
        self.root = guest.lab / "servers" / guest.name / "root"

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    def declare(self, name: str, more: str = "") -> None:
        self.guest.run(f"mkdir -p /srv/{name}/papers")
        self.write(f"/etc/storekeeper/stacks/{name}.yml", _STACK.format(name=name) + more)

    def type(self, *words: str) -> tuple[int, dict[str, Any]]:
        """A verb with `--json`: its exit code and its document, which was held to the contract."""
        done = self.guest.run(shlex.join([PROGRAM, "--json", *words]), check=False)
        document = json.loads(done.stdout)
        jsonschema.validate(document, document_schema(words[0]))
        return done.returncode, document

    def well(self, *words: str) -> dict[str, Any]:
        code, document = self.type(*words)
        assert code == 0, document
        return document["result"]

    def said(self, command: str) -> str:
        return self.guest.run(command).stdout.strip()

    def rows(self, name: str, where: str = "1") -> int:
        query = f"select count(*) from notes where {where}"
        code = f"import sqlite3; print(sqlite3.connect('/srv/{name}/main.db').execute('{query}').fetchone()[0])"
        return int(self.said(f'python3 -c "{code}"'))

    def starts(self, name: str) -> list[str]:
        return self.said(f"cat /var/log/starts-{name}").split()

    def papers(self, name: str) -> int:
        return int(self.said(f"ls /srv/{name}/papers | wc -l"))

    def serve(self, name: str, restart: str = "always") -> None:
        """A writer as a unit of the guest, with a stack whose only service it is, and a first set."""
        self.declare(name, f"services: [{{systemd: {name}}}]\n")
        self.write("/srv/writer.py", _WRITER)
        self.write(f"/etc/systemd/system/{name}.service", _UNIT.format(name=name, restart=restart))
        self.guest.run(f"systemctl daemon-reload && systemctl start {name}")
        wait_until(lambda: self.papers(name) >= 5)
        self.well("backup", name)

    def is_active(self, name: str) -> bool:
        return self.guest.run(f"systemctl is-active {name}", check=False).stdout.strip() == "active"


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with booted("bookworm-py", name="deploys", number=77) as guest:
        target = Target(guest, tmp_path_factory.mktemp("control"))
        done = target.deploy("site")
        assert done.code == 0, done.said
        yield Server(guest, target)


@pytest.mark.fault("D3")
def test_after_a_power_cut_in_a_backup_the_next_one_needs_no_hand(server):
    server.declare("power")
    server.guest.run(
        "python3 -c \"import sqlite3; sqlite3.connect('/srv/power/main.db').execute('create table notes (id integer primary key)')\""
    )
    server.guest.run("head -c 100000000 /dev/urandom >/srv/power/papers/large")
    good = server.well("backup", "power")["set"]["id"]
    server.guest.run("head -c 100000000 /dev/urandom >/srv/power/papers/larger")
    partial = _stopped_in_the_middle_of_a_backup(server, "power")
    code, busy = server.type("backup", "power")
    assert (code, busy["outcome"]) == (75, "busy"), "control: the lock is held until the power goes"

    server.guest.power_off()
    server.guest.power_on()
    assert server.said(f"ls -d {partial}") == partial, "control: the power cut left its partial"
    assert server.said("ls /var/lib/storekeeper/power/lock") == "/var/lib/storekeeper/power/lock", "control: and its lock file"
    assert [each["id"] for each in server.well("list", "power")["sets"]] == [good]
    dead = server.well("jobs", "power")["jobs"][-2]  # the last is the one that was refused as busy
    assert (dead["verb"], dead["interrupted"], dead["outcome"]) == ("backup", True, "failed")
    assert any("was interrupted" in alert["message"] for alert in server.type("status", "power")[1]["result"]["stacks"]["power"]["alerts"])

    made = server.well("backup", "power")["set"]
    assert made["state"] == "verified"
    assert server.guest.run(f"ls -d {partial}", check=False).returncode != 0, "the partial is swept"
    assert server.type("verify", "power", "--all")[0] == 0
    assert [each["id"] for each in server.well("list", "power")["sets"]] == [good, made["id"]]


def _stopped_in_the_middle_of_a_backup(server: Server, name: str) -> str:
    """Start a backup and freeze it as soon as it has written something; returns the partial that it was making."""
    server.guest.run(f"systemd-run --quiet --unit=slow {PROGRAM} backup {name}")
    look = f"find /var/backups/storekeeper/{name}/.*.partial -type f -size +1000k"
    freeze = "systemctl kill -s STOP slow; echo stopped; break"
    script = f'for n in $(seq 2000); do if [ -n "$({look} 2>/dev/null)" ]; then {freeze}; fi; sleep 0.005; done'
    assert server.said(script) == "stopped"
    assert server.said("systemctl is-active slow") == "active", "it is in the middle, not at its end"
    return server.said(f"ls -d /var/backups/storekeeper/{name}/.*.partial")


def test_a_restore_stops_the_writer_once_and_starts_it_once(server):
    server.serve("once")
    first = server.well("list", "once")["sets"][-1]["stores"]
    (writer,) = server.starts("once")
    wait_until(lambda: server.rows("once") > first["main"]["counts"]["notes"] + 5)
    result = server.well("restore", "once", "latest", "--yes")
    assert set(result["stores"]) == {"main", "papers"}
    assert server.is_active("once")
    assert len(server.starts("once")) == 2, "stopped and started, and not in between although systemd is told to restart it always"
    assert server.rows("once", f"writer = {writer}") == first["main"]["counts"]["notes"], "exactly the rows of the set"
    wait_until(lambda: server.rows("once", f"writer != {writer}") > 3)
    server.guest.run("systemctl stop once")


def test_control_a_writer_that_is_not_declared_writes_into_what_is_switched(server):
    """Without `services` nobody stops the writer: rows of the old writer are there beyond those of the set."""
    server.serve("unasked")
    server.declare("unasked")
    held = server.well("list", "unasked")["sets"][-1]["stores"]["main"]["counts"]["notes"]
    (writer,) = server.starts("unasked")
    code, document = server.type("restore", "unasked", "latest", "--only", "main", "--yes")
    assert code == 4, document  # the papers stay as they are: a warning
    wait_until(lambda: server.rows("unasked", f"writer = {writer}") > held)
    assert server.starts("unasked") == [writer]
    server.guest.run("systemctl stop unasked")


def test_a_unit_that_did_not_run_before_is_left_stopped(server):
    server.serve("resting")
    server.guest.run("systemctl stop resting")
    starts = server.starts("resting")
    server.well("restore", "resting", "latest", "--yes")
    assert not server.is_active("resting")
    assert server.starts("resting") == starts


def test_a_unit_that_does_not_start_again_takes_every_store_back_by_itself(server):
    server.serve("hiccup", restart="no")
    held = server.well("list", "hiccup")["sets"][-1]["stores"]["main"]["counts"]["notes"]
    wait_until(lambda: server.rows("hiccup") > held + 5)
    server.guest.run("touch /run/fail-once")
    code, document = server.type("restore", "hiccup", "latest", "--yes")
    assert (code, document["outcome"]) == (1, "failed")
    assert "all stores are back as they were before" in document["problems"][0]["message"]
    (writer, *_) = server.starts("hiccup")
    assert server.rows("hiccup", f"writer = {writer}") > held + 5, "the rows that the set does not have are there again"
    assert server.papers("hiccup") > held + 5
    assert server.is_active("hiccup"), "what ran before runs again"
    assert server.type("resume", "hiccup")[1]["result"]["ended"] is None, "nothing is left open"
    server.guest.run("systemctl stop hiccup")


def test_a_unit_that_never_starts_again_keeps_the_restore_open_until_it_is_mended(server):
    server.serve("broken", restart="no")
    held = server.well("list", "broken")["sets"][-1]["stores"]["main"]["counts"]["notes"]
    wait_until(lambda: server.rows("broken") > held + 5)
    server.guest.run("touch /run/broken")
    code, document = server.type("restore", "broken", "latest", "--yes")
    assert (code, document["outcome"]) == (1, "failed")
    assert "storekeeper resume broken" in document["problems"][0]["next"]
    assert server.rows("broken") > held + 5, "the stores are as before all the same"
    code, tried = server.type("backup", "broken")
    assert (code, tried["result"]) == (1, None), "a backup first ends what is open, and cannot yet"
    server.guest.run("rm /run/broken")
    code, resumed = server.type("resume", "broken")
    assert (code, resumed["result"]["ended"]) == (4, "went back"), "it is over, and did not end as was asked for"
    assert server.is_active("broken")
    assert server.rows("broken") > held + 5
    server.guest.run("systemctl stop broken")


@pytest.fixture(scope="module")
def deployed(server: Server) -> Deployed:
    """deploys/site.py has run, and a letter box stands where a mail server would."""
    server.write("/usr/sbin/sendmail", "#!/bin/sh\nexec cat >/var/letters/$$\n", 0o755)
    server.guest.run("mkdir -p /var/letters && systemctl is-active cron")
    for name in ("kept", "spoilt"):
        server.guest.run(f"mkdir -p /srv/{name}/papers")
        code = f"import sqlite3; sqlite3.connect('/srv/{name}/main.db').execute('create table notes (id integer primary key)')"
        server.guest.run(f'python3 -c "{code}"; echo hello >/srv/{name}/papers/a')
    server.guest.run("head -c 8192 /dev/urandom >/srv/spoilt/main.db")
    schedule = "schedule: [{verb: backup, at: '* * * * *'}]\n"
    server.target.declare(storekeeper_stacks={name: _STACK.format(name=name) + schedule for name in ("kept", "spoilt")})
    return server.target.deploy("site")


@pytest.mark.fault("G8")
def test_a_server_is_deployed_over_ssh_with_sudo_and_a_second_run_changes_nothing(server, deployed):
    assert deployed.code == 0, deployed.said
    assert "Schedule of kept" in deployed.changed
    again = server.target.deploy("site")
    assert (again.code, again.changed) == (0, [])
    assert server.said("stat -c '%U %a' /etc/cron.d/storekeeper-kept /etc/storekeeper/stacks/kept.yml /var/lib/storekeeper") == (
        "root 644\nroot 600\nroot 700"
    )


@pytest.mark.fault("G9")
@pytest.mark.control("G8", "G9")
def test_what_was_changed_by_hand_stays_so_until_the_deploy_finds_it_and_changes_nothing_else(server, deployed):
    server.guest.run("sed -i 's/^[*] .*backup kept.*$//' /etc/cron.d/storekeeper-kept; chmod 755 /var/lib/storekeeper")
    seen = server.target.deploy("drift")
    assert seen.code == 4
    assert [line.split("differs: deploys/site.py | ")[1] for line in seen.said.splitlines() if "differs: " in line] == [
        "Directory of the state",
        "Schedule of kept",
    ]
    assert "backup kept" not in server.said("cat /etc/cron.d/storekeeper-kept"), "to look changes nothing"
    mended = server.target.deploy("site")
    assert (mended.code, mended.changed) == (0, ["Directory of the state", "Schedule of kept"])
    assert "backup kept" in server.said("cat /etc/cron.d/storekeeper-kept")
    assert server.target.deploy("drift").code == 0


def test_a_deploy_over_ssh_with_sudo_takes_a_set_and_reads_the_state(server, deployed, tmp_path):
    backed = server.target.deploy("backup", stack="kept")
    assert backed.code == 0, backed.said
    assert server.target.deploy("backup", stack="kept", within="26h").changed == []
    failed = server.target.deploy("backup", stack="spoilt")
    assert failed.code == 1
    assert failed.said.count("spoilt, main: ") == 1, failed.said
    report = server.target.deploy("status", report=str(tmp_path / "report.html"))
    assert report.code == 0, report.said
    page = (tmp_path / "report.html").read_text()
    assert server.well("list", "kept")["sets"][0]["id"] in page
    assert "There is no set. Nothing can be restored." in page


@pytest.mark.fault("I5")
def test_cron_takes_verified_sets_and_posts_one_sentence_of_what_went_wrong(server, deployed):
    before = len(server.well("list", "kept")["sets"])
    wait_until(lambda: len(server.well("list", "kept")["sets"]) > before and server.said("cat /var/letters/* 2>/dev/null | wc -c") != "0")
    assert {each["state"] for each in server.well("list", "kept")["sets"]} == {"verified"}
    letters = server.said("cd /var/letters && for letter in *; do cat $letter; echo; echo =====; done").split("=====")
    bodies = [letter.split("\n\n", 1)[1].strip() for letter in letters if letter.strip()]
    for body in bodies:
        assert len(body.splitlines()) == 1, body
        assert body.startswith("storekeeper: failed: spoilt, main: ")
    assert not any("kept" in letter.split("\n\n", 1)[1] for letter in letters if letter.strip()), "a run that went well posts nothing"
    server.guest.run("rm /etc/cron.d/storekeeper-*")


def test_the_systems_own_directory_of_schedules_stays_roots_whoever_the_program_runs_as(server, deployed):
    """cron reads no file of another user there, and a directory of his would be his way to become root."""
    done = server.target.deploy("site", storekeeper_user="nobody", storekeeper_config="/srv/etc", storekeeper_state="/srv/state")
    assert done.code == 0, done.said
    try:
        assert server.said("stat -c '%U %a' /etc/cron.d /etc/cron.d/storekeeper-kept") == "root 755\nroot 644"
        assert f" nobody {PROGRAM} --config /srv/etc " in server.said("cat /etc/cron.d/storekeeper-kept")
        assert server.said("stat -c '%U %a' /srv/etc /srv/etc/stacks/kept.yml") == "nobody 700\nnobody 600"
    finally:
        server.guest.run("rm /etc/cron.d/storekeeper-*")


def test_control_a_wire_that_loses_every_packet_lets_nothing_through_and_is_mended(server):
    server.guest.lose(1.0)
    try:
        assert server.guest.run("true", check=False).returncode == 255
    finally:
        server.guest.mend()
    assert server.said("echo back") == "back"
