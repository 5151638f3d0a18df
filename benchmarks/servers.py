"""Servers, booted for this and reached over a wire with latency: a deploy that finds nothing to do, beside Ansible that finds nothing to
do on the same server; the state of twenty hosts; and a bare Debian made one with a proven set.

python -m benchmarks.servers [--rounds 5] [--hosts 20] [--rtt-ms 50] [--suites "bookworm trixie"]

Needs root, as the tests that boot do. Ansible is given the release's name, for it cannot make one, and does without our preflight. Its
playbook is applied to what `site.py` made and must find all of it as it declares it; then both must find and mend the same damage. So
each looks at everything that the other looks at. Every run of either begins without a connection.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import rivals
from benchmarks.measuring import Found, Timing, command, compared, figure, in_turn, show, timed, weighed
from operations.program import Program
from operations.schedule import cron_lines
from storekeeper.stack.loader import check_text
from tests.harness.deploys import Deployed
from tests.harness.guest import Guest, booted
from tests.harness.program import CHECKOUT
from tests.harness.target import Target
from tests.harness.wire import Wire, wire

__all__ = ["TITLE", "measure", "show"]

TITLE = "Servers"
GOAL_SITE_S = 5.0
GOAL_ANSIBLE = 3.0  # times as fast
_VERSIONS = {"bookworm": 15, "trixie": 17}
_NUMBERS = {"bookworm": 97, "trixie": 98}
_OURS, _TUNED, _DEFAULT = "site.py", "Ansible, pipelining and no facts", "Ansible as it comes"

_STACK = """stack: {name}
stores:
  rows: {{kind: sqlite, path: /srv/{name}/{name}.db}}
  papers: {{kind: files, path: /srv/{name}/papers}}
backup: {{keep: {{days: 30, daily: 7, weekly: 4, monthly: 6, at_least: 3}}}}
schedule: {{backup: "0 3 * * *", prove: "30 4 * * 0"}}
"""
_STACKS = {name: _STACK.format(name=name) for name in ("notes", "shop")}
_SECRETS = ("mail", "web")
_LOG = {"files": ["/srv/notes/logs/*.log"], "user": "root"}
_FLEETS_STACK = "stack: notes\nstores: {papers: {kind: files, path: /srv/notes/papers}}\n"

_DAMAGE = """set -e
chmod 755 /etc/storekeeper
echo '# by hand' >>/etc/storekeeper/stacks/shop.yml
echo wrong >/etc/storekeeper/secrets/web
sed -i 's/^0 3/0 5/' /etc/cron.d/storekeeper-notes
sed 's/stack notes/stack gone/' /etc/cron.d/storekeeper-notes >/etc/cron.d/storekeeper-gone
chown ops /etc/logrotate.d/storekeeper-notes
ln -sfn releases/none /opt/storekeeper/current
"""
_WHAT_IS_DAMAGED = 7

_PLAYBOOK = """
- hosts: all
  become: true
  gather_facts: {gather_facts}
  tasks:
    - stat: {{path: "/opt/storekeeper/releases/{{{{ release }}}}/.complete", get_checksum: false, get_mime: false, get_attributes: false}}
      register: complete
    - assert: {{that: complete.stat.exists, quiet: true}}
    - file: {{path: /opt/storekeeper/current, src: "releases/{{{{ release }}}}", state: link}}
    - file: {{path: "{{{{ item.path }}}}", state: directory, owner: root, mode: "{{{{ item.mode }}}}"}}
      loop: "{{{{ directories }}}}"
    - template: {{src: storekeeper.yml.j2, dest: /etc/storekeeper/storekeeper.yml, owner: root, mode: "0600", trim_blocks: false}}
    - copy: {{src: "{{{{ item.file }}}}", dest: "/etc/storekeeper/secrets/{{{{ item.name }}}}", owner: root, mode: "0600"}}
      loop: "{{{{ secrets }}}}"
      no_log: true
    - copy: {{src: "{{{{ item.name }}}}.yml", dest: "/etc/storekeeper/stacks/{{{{ item.name }}}}.yml", owner: root, mode: "0600"}}
      loop: "{{{{ stacks }}}}"
    - template:
        src: cron.j2
        dest: "/etc/cron.d/storekeeper-{{{{ item.name }}}}"
        owner: root
        mode: "0644"
        trim_blocks: false
      loop: "{{{{ stacks }}}}"
      vars: {{stack: "{{{{ item.name }}}}", lines: "{{{{ item.lines }}}}", config: /etc/storekeeper, run_as: root}}
    - find:
        paths: [/etc/cron.d, /etc/systemd/system]
        patterns: ["storekeeper-*"]
        contains: "# Written by deploys/site.py for the stack .* of /etc/storekeeper: .*"
      register: schedules
    - file: {{path: "{{{{ item.path }}}}", state: absent}}
      loop: "{{{{ schedules.files }}}}"
      loop_control: {{label: "{{{{ item.path }}}}"}}
      when: item.path not in (stacks | map(attribute='name') | map('regex_replace', '^', '/etc/cron.d/storekeeper-') | list)
    - template: {{src: logrotate.j2, dest: /etc/logrotate.d/storekeeper-notes, owner: root, mode: "0644", trim_blocks: false}}
"""
_SETTINGS = {
    _TUNED: "[defaults]\ninterpreter_python = /usr/bin/python3\ngathering = explicit\n[connection]\npipelining = True\n"
    "[ssh_connection]\npipelining = True\nssh_args = -C -o ControlMaster=auto -o ControlPersist=60s\n",
    _DEFAULT: "[defaults]\n",
}


_NOTES = """\
Over a wire with a round-trip time of {rtt_ms:g} ms, where one is named. A round trip is counted for each connection that is made, and \
where the client sent something after it had heard something.
Ansible {ansible} has the same declared state as a playbook, which found all that `site.py` had made as it declares it, and found the same \
damage. The release is made by `site.py` alone, and only `site.py` looks first at the clock, the room and the system of the server.
The hosts of `status` are configurations on one server, whose processors they share.
From bare Debian: from the moment it can be logged in to, with packages fetched from the indexes of Debian and of Python.
"""


def measure(rounds: int = 5, hosts: int = 20, rtt_ms: float = 50.0, suites: str = "bookworm trixie") -> Found:
    rows = []
    with tempfile.TemporaryDirectory(prefix="storekeeper-benchmark-") as place:
        with booted("bookworm-py", name="bench-site", number=96) as guest:
            rows += _nothing_to_do(guest, Path(place, "site"), rounds, rtt_ms)
            rows += _state_of(guest, Path(place, "fleet"), hosts, rounds, rtt_ms)
        for suite in suites.split():
            rows += _from_bare(suite, Path(place, suite))
    return {"rows": rows, "notes": _NOTES.format(rtt_ms=rtt_ms, ansible=rivals.ansible_version()).splitlines()}


@dataclass(frozen=True)
class Reached:
    """How a server is reached: at its own address, or over a wire."""

    address: str
    port: int
    known_hosts: Path

    @property
    def data(self) -> dict[str, Any]:
        return {"ssh_hostname": self.address, "ssh_port": self.port, "ssh_known_hosts_file": str(self.known_hosts)}


def _reached(guest: Guest, control: Path, the_wire: Wire | None = None) -> Reached:
    known_hosts = guest.lab / "servers" / guest.name / "known_hosts"
    if the_wire is None:
        return Reached(guest.address, 22, known_hosts)
    over = control / f"known_hosts.{the_wire.port}"
    over.write_text(f"[127.0.0.1]:{the_wire.port} {known_hosts.read_text().split(' ', 1)[1]}")
    return Reached("127.0.0.1", the_wire.port, over)


def _nothing_to_do(guest: Guest, control: Path, rounds: int, rtt_ms: float) -> list[Found]:
    control.mkdir()
    secrets = {name: _private(control / f"{name}.secret", f"the secret of {name}\n") for name in _SECRETS}
    declared = {
        "storekeeper_stacks": _STACKS,
        "storekeeper_secrets": {name: {"file": str(file)} for name, file in secrets.items()},
        "storekeeper_logs": {"notes": _LOG},
    }
    target = Target(guest, control, **declared)
    _succeeded(target.deploy("site"))
    current = target.said("readlink", "/opt/storekeeper/current").removeprefix("releases/")
    ansible = Ansible(target, control / "ansible", current, secrets)
    ansible.reach(_reached(guest, control))
    _both_mend_the_same_damage(target, ansible)
    trips: dict[str, list[int]] = {side: [] for side in (_OURS, *_SETTINGS)}
    with wire(guest.address, rtt_ms=rtt_ms) as slow:
        reached = _reached(guest, control, slow)
        target.declare(**declared, **reached.data)
        ansible.reach(reached)

        def counted(side: str, action: Callable[[], None]) -> Timing:
            before = slow.round_trips()
            timing = timed(action)
            trips[side].append(slow.round_trips() - before)
            ansible.hang_up()
            return timing

        found = in_turn(
            rounds,
            {
                _OURS: lambda _: counted(_OURS, lambda: _unchanged(target.deploy("site"))),
                _TUNED: lambda _: counted(_TUNED, lambda: _expect(0, ansible.changed(_TUNED))),
                _DEFAULT: lambda _: counted(_DEFAULT, lambda: _expect(0, ansible.changed(_DEFAULT))),
            },
        )
    what = f"`site.py` of a host with two stacks, nothing to do, {rtt_ms:g} ms"
    middle = {side: statistics.median(counts) for side, counts in trips.items()}
    return [
        figure(what, [each.seconds for each in found[_OURS]], "s", goal=GOAL_SITE_S),
        compared(f"{what}: times as fast", found[_OURS], _TUNED, found[_TUNED], goal=GOAL_ANSIBLE, at_least=True),
        compared(f"{what}: times as fast", found[_OURS], _DEFAULT, found[_DEFAULT], at_least=True),
        *(weighed("its round trips", middle[_OURS], side, middle[side], "") for side in _SETTINGS),
    ]


def _both_mend_the_same_damage(target: Target, ansible: Ansible) -> None:
    """Neither is fast because it does not look."""
    for side in _SETTINGS:
        _expect(0, ansible.changed(side))
        target.guest.run(_DAMAGE)
        _expect(_WHAT_IS_DAMAGED, ansible.changed(side))
        _unchanged(target.deploy("site"))
    target.guest.run(_DAMAGE)
    _expect(_WHAT_IS_DAMAGED, _succeeded(target.deploy("site")).changed)
    _expect(0, ansible.changed(_TUNED))
    ansible.hang_up()


class Ansible:
    """The playbook and the inventory of one server, below `control`, and each run of it with settings of ours."""

    def __init__(self, target: Target, place: Path, release: str, secrets: dict[str, Path]) -> None:
        self._place = place
        self._program = rivals.ansible()
        (place / "templates").mkdir(parents=True)
        (place / "files").mkdir()
        for template in ("storekeeper.yml.j2", "cron.j2", "logrotate.j2"):
            text = (CHECKOUT / "templates" / template).read_text()
            ends = "\n" if text.endswith("%}\n") else ""  # where a template ends with a block, Ansible drops the newline after it
            (place / "templates" / template).write_text(text + ends)
        for name, text in _STACKS.items():
            (place / f"files/{name}.yml").write_text(text)
        for number, (side, settings) in enumerate(_SETTINGS.items()):
            (place / f"{number}.cfg").write_text(settings)
            (place / f"{number}.yml").write_text(_PLAYBOOK.format(gather_facts=str(side == _DEFAULT).lower()))
        login = {"ansible_user": "ops", "ansible_ssh_private_key_file": str(target.guest.lab / "id_ed25519")}
        self._known = {**login, **_declared_for_ansible(target.guest.address, release, secrets)}

    def reach(self, reached: Reached) -> None:
        """From now on."""
        options = f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={reached.known_hosts}"
        at = {"ansible_host": reached.address, "ansible_port": reached.port, "ansible_ssh_common_args": options}
        (self._place / "hosts.json").write_text(json.dumps({"all": {"hosts": {"server": self._known | at}}}))

    def changed(self, side: str) -> list[str]:
        """Run it; what it changed, a line each. Raises RuntimeError where anything failed."""
        number = list(_SETTINGS).index(side)
        known = {
            "PATH": f"{self._program.parent}:{os.environ['PATH']}",
            "HOME": str(self._place),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(self._place / f"{number}.cfg"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._sockets),
        }
        words: list[str | Path] = [self._program, "-i", self._place / "hosts.json", self._place / f"{number}.yml"]
        done = subprocess.run(words, env=known, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        recap = re.search(r"changed=(\d+) +unreachable=0 +failed=0", done.stdout)
        if done.returncode != 0 or recap is None:
            raise RuntimeError(f"Ansible ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return [line for line in done.stdout.splitlines() if line.startswith("changed: ")]

    def hang_up(self) -> None:
        """End the connection that it leaves open for a while."""
        for socket in self._sockets.glob("*"):
            subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "server"], capture_output=True, check=False)

    @property
    def _sockets(self) -> Path:
        return self._place / "cp"


def _declared_for_ansible(host: str, release: str, secrets: dict[str, Path]) -> dict[str, Any]:
    """What the playbook reads; times and commands of the schedules as `site.py` writes them."""
    lines = {name: cron_lines(check_text(text, name), Program(), host) for name, text in _STACKS.items()}
    private = [
        "/etc/storekeeper",
        "/etc/storekeeper/stacks",
        "/etc/storekeeper/secrets",
        "/var/lib/storekeeper",
        "/var/backups/storekeeper",
    ]
    return {
        "release": release,
        "directories": [*({"path": path, "mode": "0700"} for path in private), {"path": "/etc/cron.d", "mode": "0755"}],
        "repository": "/var/backups/storekeeper",
        "state": "/var/lib/storekeeper",
        "scratch": "/var/tmp",
        "secrets": [{"name": name, "file": str(file)} for name, file in secrets.items()],
        "stacks": [{"name": name, "lines": [vars(line) for line in each]} for name, each in lines.items()],
        "log": {"every": "daily", "keep": 14, **_LOG},
    }


def _state_of(guest: Guest, control: Path, hosts: int, rounds: int, rtt_ms: float) -> list[Found]:
    control.mkdir()
    guest.run("mkdir -p /srv/notes/papers && echo hello >/srv/notes/papers/a")
    names = [f"host-{number:02d}" for number in range(hosts)]
    with wire(guest.address, rtt_ms=rtt_ms) as slow:
        fleet = Target(guest, control)
        known = {
            "ssh_user": "root",
            "ssh_key": str(guest.lab / "id_ed25519"),
            "ssh_strict_host_key_checking": "yes",
            "storekeeper_stacks": {"notes": _FLEETS_STACK},
            **_reached(guest, control, slow).data,
        }
        places = {"config": "etc", "state": "state", "repository": "sets", "cron": "cron.d"}
        each = [(name, {**known, **{f"storekeeper_{key}": f"/srv/{name}/{at}" for key, at in places.items()}}) for name in names]
        fleet.inventory.write_text(f"hosts = {each!r}\n")
        _succeeded(fleet.deploy("site", "--limit", names[0]))  # makes the release that all of them share
        _succeeded(fleet.deploy("site"))
        _succeeded(fleet.deploy("backup"))
        page, document = control / "report.html", control / "report.json"
        seconds, trips = [], []
        for _ in range(rounds):
            document.unlink(missing_ok=True)
            before, began = slow.round_trips(), time.perf_counter()
            _succeeded(fleet.deploy("status", report=str(page)))
            seconds.append(time.perf_counter() - began)
            trips.append((slow.round_trips() - before) / hosts)
            _expect(hosts, [name for name, said in json.loads(document.read_text())["hosts"].items() if said["answers"]])
    what = f"`status` of {hosts} hosts with the report, {rtt_ms:g} ms"
    return [figure(what, seconds, "s"), figure(f"{what}: round trips of a host, with the connection", trips, "")]


def _from_bare(suite: str, control: Path) -> list[Found]:
    control.mkdir()
    with booted(suite, name=f"bench-{suite}"[:12], number=_NUMBERS[suite]) as guest:
        target = Target(guest, control, **_database(suite, control))
        began = time.perf_counter()
        _succeeded(target.deploy("provision"))
        _succeeded(target.deploy("site"))
        provisioned_s = time.perf_counter() - began
        guest.run("runuser -u shop -- psql -qd shop -c 'create table orders as select n, md5(n::text) from generate_series(1, 10000) n'")
        guest.run("runuser -u shop -- sh -c 'echo a paper >/srv/shop/papers/1.txt'")
        _succeeded(target.deploy("backup"))
        _succeeded(target.deploy("prove"))
        seconds = time.perf_counter() - began
        _expect(1, [each["id"] for each in _sets_of(guest, "shop") if each["state"] == "proven"])
        again = timed(lambda: _unchanged(target.deploy("provision")), lambda: _unchanged(target.deploy("site")))
        system = target.said("sh", "-c", ". /etc/os-release && echo $VERSION_ID")
    what = f"bare Debian {system} to a stack with PostgreSQL and a first proven set"
    return [
        figure(what, [seconds / 60], "min", note=f"{provisioned_s:.0f} s of it `provision` and `site`"),
        figure(f"Debian {system}: `provision` and `site` again, 0 changes", [again.seconds], "s"),
    ]


def _database(suite: str, control: Path) -> dict[str, Any]:
    """As docs/servers.md declares it."""
    password = _private(control / "password", "a word that nobody guesses\n")
    roles = {"shop": {"password": {"file": str(password)}, "connection_limit": 40}}
    database = {"owner": "shop", "extensions": ["pg_trgm", "pg_stat_statements"], "pools": {"web": 20, "jobs": 10}}
    stores = "{orders: {kind: postgresql, database: shop, user: shop}, papers: {kind: files, path: /srv/shop/papers}}"
    return {
        "storekeeper_users": {"shop": {"home": "/srv/shop"}},
        "storekeeper_directories": {path: {"user": "shop"} for path in ("/srv/shop", "/srv/shop/papers", "/srv/shop/logs")},
        "storekeeper_logs": {"shop": {"files": ["/srv/shop/logs/*.log"], "user": "shop"}},
        "storekeeper_postgresql": {
            "version": _VERSIONS[suite],
            "max_connections": 60,
            "memory_share": 0.1,
            "roles": roles,
            "backup_role": "shop_backup",
            "monitoring_role": "shop_watch",
            "databases": {"shop": database},
        },
        "storekeeper_stacks": {"shop": f'stack: shop\nstores: {stores}\nschedule: {{backup: "0 3 * * *", prove: "30 4 * * 0"}}\n'},
    }


def _sets_of(guest: Guest, stack: str) -> list[dict[str, Any]]:
    sets: list[dict[str, Any]] = json.loads(guest.run(f"{Program().plain} --json list {stack}").stdout)["result"]["sets"]
    return sets


def _private(file: Path, text: str) -> Path:
    file.touch(mode=0o600)
    file.write_text(text)
    return file


def _succeeded(deployed: Deployed) -> Deployed:
    if deployed.code != 0:
        raise RuntimeError(f"a deploy ended with {deployed.code}:\n{deployed.said}")
    return deployed


def _unchanged(deployed: Deployed) -> None:
    _expect(0, _succeeded(deployed).changed)


def _expect(wanted: int, found: list[str]) -> None:
    if len(found) != wanted:
        raise RuntimeError(f"{wanted} expected, {len(found)} found: {'; '.join(found)}")


if __name__ == "__main__":
    command(__doc__, measure)
