"""What a host must be before anything is done there, on a booted Debian 12 over SSH: each refusal is one sentence, for its host alone."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.deploys import Deployed, environment, run_deploy
from tests.harness.guest import CHECKOUT, Guest, booted
from tests.harness.target import Target

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

_STACK = "stack: {name}\nstores: {{papers: {{kind: files, path: /srv/notes/papers}}}}\n"
_CRON = "schedule: {backup: '0 3 * * *'}\nscheduler: {by: cron}\n"
_TIMERS = "schedule: {backup: '0 3 * * *'}\nscheduler: {by: systemd}\n"
_PROGRAM = "/opt/storekeeper/current/bin/storekeeper"
_PYINFRA = f"{sys.prefix}/bin/pyinfra"
_SECRET = "a-secret-that-nobody-sees"
_KEY = "/etc/ssh/ssh_host_ed25519_key"
_ANEW = "systemctl reset-failed ssh; systemctl restart ssh"  # systemd starts nothing six times in ten seconds


def _stacks(more: str = "", name: str = "notes") -> dict[str, str]:
    return {name: _STACK.format(name=name) + more}


class Server(Target):
    """A server with the program on it, one stack, and a second user who may use no sudo."""

    first: Deployed  # how it got the program, with a temporary directory without room

    @contextmanager
    def changed(self, done: str, undone: str) -> Iterator[None]:
        self.guest.run(done)
        try:
            yield
        finally:
            self.guest.run(undone)

    def mounted(self, place: str, options: str) -> Any:
        return self.changed(f"mkdir -p {place} && mount -t tmpfs -o {options} none {place}", f"umount {place}")

    def wrapped(self, program: str, script: str) -> Any:
        """Another program of that name is found first, with sudo and without."""
        path = f"/usr/local/bin/{program}"
        return self.changed(f"cat >{path} <<'END'\n#!/bin/sh\n{script}\nEND\nchmod 755 {path}", f"rm {path}")

    def of_another_release(self, text: str) -> Any:
        file = "/etc/os-release"
        return self.changed(f"mv {file} {file}.was && printf '{text}\n' >{file}", f"mv {file}.was {file}")

    def deployed(self, which: str, *words: str, **data: Any) -> Deployed:
        self.declare(**{"storekeeper_stacks": _stacks(), **data})
        done = self.deploy(which, *words)
        assert "Traceback" not in done.said, done.said
        return done

    def well(self, which: str, **data: Any) -> Deployed:
        done = self.deployed(which, **data)
        assert done.code == 0, done.said
        return done

    def refused(self, which: str, *words: str, **data: Any) -> str:
        """The one sentence with which the deploy ends before anything is done."""
        done = self.deployed(which, *words, **data)
        assert done.code == 1, done.said
        (sentence,) = _sentences(done)
        return sentence

    def fresh(self, name: str) -> dict[str, str]:
        """Places of which there are none yet."""
        return {
            "storekeeper_releases": f"/opt/{name}",
            "storekeeper_config": f"/srv/{name}/etc",
            "storekeeper_state": f"/srv/{name}/state",
            "storekeeper_repository": f"/srv/{name}/sets",
        }

    def there(self, path: str) -> bool:
        return self.guest.run(f"test -e {path}", check=False).returncode == 0


def _sentences(done: Deployed) -> list[str]:
    """What is said of hosts, but for pyinfra's own words that it reached one and did nothing there."""
    said = re.findall(r"^ +\[[^]]+\] (.*)$", done.said, re.MULTILINE)
    return [line for line in said if not re.match(r"Connected$|Ready: |Error: executed 0 commands", line)]


def _typed(target: Target, command: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """A command on the hosts by pyinfra alone, without a deploy of ours."""
    argv = [_PYINFRA, "-y", str(target.inventory), "exec", "--", command]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **settings)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with booted("bookworm-py", name="preflight", number=90) as guest:
        server = Server(guest, tmp_path_factory.mktemp("control"))
        guest.run("mkdir -p /srv/notes/papers && echo hello >/srv/notes/papers/a")
        guest.run("useradd -m -s /bin/bash other && cp -a /home/ops/.ssh /home/other/ && chown -R other: /home/other")
        # a login without a home still has its key
        guest.run("cp /root/.ssh/authorized_keys /etc/ssh/all && chmod 644 /etc/ssh/all")
        guest.run(f"echo 'AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/all' >/etc/ssh/sshd_config.d/all.conf; {_ANEW}")
        with _full(server):
            server.first = server.well("site")
        yield server


# Who answers


@contextmanager
def _another_key(guest: Guest) -> Iterator[None]:
    """The server has another key, as if somebody else answered at its address."""
    known = guest.lab / "servers" / guest.name / "known_hosts"
    before = known.read_text(encoding="utf-8")
    guest.run(f"cp -a {_KEY} {_KEY}.was; rm {_KEY}; ssh-keygen -q -t ed25519 -N '' -f {_KEY}; {_ANEW}")
    key = (guest.lab / "servers" / guest.name / f"root{_KEY}.pub").read_text(encoding="utf-8")
    known.write_text(f"{guest.address} {key}", encoding="utf-8")
    try:
        yield
    finally:
        guest.run(f"mv {_KEY}.was {_KEY}; ssh-keygen -y -f {_KEY} >{_KEY}.pub; {_ANEW}")
        known.write_text(before, encoding="utf-8")


def _known_hosts(server: Server, directory: Path) -> Path:
    """A person's own copy of the right file."""
    file = directory / "known_hosts"
    file.write_text((server.guest.lab / "servers" / server.guest.name / "known_hosts").read_text(encoding="utf-8"), encoding="utf-8")
    return file


@pytest.mark.fault("G6")
def test_a_host_with_another_key_is_not_talked_to(server: Server, tmp_path: Path) -> None:
    file = _known_hosts(server, tmp_path)
    with _another_key(server.guest):
        sentence = server.refused("site", ssh_known_hosts_file=str(file), **server.fresh("stranger"))
        assert not server.there("/srv/stranger")
    assert sentence.startswith(f"nothing is done on {server.guest.address}: its key is not the one of {server.guest.address} in {file}: ")
    assert f"ssh-keygen -R '{server.guest.address}' -f {file}" in sentence
    server.well("list", ssh_known_hosts_file=str(file))


@pytest.mark.fault("G6")
@pytest.mark.parametrize("broken", ["empty", "garbage", "directory", "missing"])
def test_a_host_whose_key_cannot_be_looked_up_is_not_talked_to(server: Server, tmp_path: Path, broken: str) -> None:
    file = tmp_path / "known_hosts"
    if broken == "directory":
        file.mkdir()
    elif broken != "missing":
        file.write_bytes(b"" if broken == "empty" else b"\xff\xfe\x00" * 100)
    sentence = server.refused("site", ssh_known_hosts_file=str(file), **server.fresh("unknown"))
    why = {
        "empty": f"{file} has no key of {server.guest.address}: ask whoever runs it for its key, and add that",
        "garbage": f"{file} cannot be read (it is no text), and hosts are known by their keys in it: mend it",
        "directory": f"{file} cannot be read (Is a directory), and hosts are known by their keys in it: mend it",
        "missing": f"{file} cannot be read (No such file or directory), and hosts are known by their keys in it: mend it",
    }
    assert sentence == f"nothing is done on {server.guest.address}: {why[broken]}"
    assert not server.there("/srv/unknown")


@pytest.mark.fault("G6")
def test_an_inventory_that_says_nothing_of_keys_is_strict_and_known_hosts_stays_as_it_is(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.touch()
    server.declare(ssh_known_hosts_file=str(file), storekeeper_stacks=_stacks())
    _say_nothing_of_keys(server)
    done = server.deploy("list")
    assert (done.code, file.read_text(encoding="utf-8")) == (1, ""), done.said
    assert "has no key of" in done.said


def _say_nothing_of_keys(target: Target) -> None:
    text = target.inventory.read_text(encoding="utf-8")
    target.inventory.write_text(text.replace("'ssh_strict_host_key_checking': 'yes', ", ""), encoding="utf-8")


@pytest.mark.control("G6")
def test_control_pyinfra_by_itself_believes_whoever_answers_first(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.touch()
    with _another_key(server.guest):
        server.declare(ssh_known_hosts_file=str(file))
        _say_nothing_of_keys(server)
        done = _typed(server, "touch /tmp/believed", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert server.guest.run("rm /tmp/believed").returncode == 0
    assert server.guest.address in file.read_text(encoding="utf-8"), "and will believe him from now on"


@pytest.mark.control("G6")
@pytest.mark.fault("G6")
def test_an_inventory_that_wants_any_key_believed_is_refused_where_pyinfra_does_as_it_says(server: Server, tmp_path: Path) -> None:
    lenient = {"ssh_known_hosts_file": os.devnull, "ssh_strict_host_key_checking": "no"}
    with _another_key(server.guest):
        server.declare(**lenient)
        done = _typed(server, "touch /tmp/believed", cwd=CHECKOUT)
        assert done.returncode == 0, done.stderr
        assert server.guest.run("rm /tmp/believed").returncode == 0
        sentence = server.refused("site", **lenient, **server.fresh("believed"))
        assert not server.there("/srv/believed")
    assert sentence.startswith("ssh_strict_host_key_checking is no: whoever answers at ")


# What may be done


@pytest.mark.fault("G7")
@pytest.mark.parametrize(
    ("done", "undone", "sentence"),
    [
        (
            "cp -a /etc/sudoers.d/ops /root/ && echo 'ops ALL=(ALL) ALL' >/etc/sudoers.d/ops",
            "cp -a /root/ops /etc/sudoers.d/",
            r"sudo does not work for ops on \S+ \(sudo: a password is required\): put 'ops ALL=\(ALL\) NOPASSWD: ALL' into /etc/sudoers\.d",
        ),
        ("mv /etc/sudoers.d/ops /root/", "mv /root/ops /etc/sudoers.d/", r"sudo does not work for ops on \S+ \(sudo: .*\): put "),
        (
            "cp -a /etc/sudoers.d/ops /root/ && echo 'ops ALL=(ALL) NOPASSWD: /usr/bin/id' >/etc/sudoers.d/ops",
            "cp -a /root/ops /etc/sudoers.d/",
            r"sudo does not work for ops on \S+ \(sudo: .*\): put ",
        ),
        ("mv /usr/bin/sudo /usr/bin/sudo.away", "mv /usr/bin/sudo.away /usr/bin/sudo", r"there is no sudo on \S+: apt-get install sudo"),
    ],
    ids=["needs a password", "is not allowed", "is allowed for one command", "is not there"],
)
def test_a_user_whose_sudo_does_not_work_is_told_so_in_one_line(server: Server, done: str, undone: str, sentence: str) -> None:
    with server.changed(done, undone):
        said = server.refused("site", **server.fresh("forbidden"))
    assert re.match(sentence, said), said
    assert said.endswith("or log in as root and declare storekeeper_sudo = False")
    assert not server.there("/srv/forbidden")


@pytest.mark.fault("G7")
def test_no_secret_is_said_where_sudo_does_not_work(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(_SECRET, encoding="utf-8")
    secret.chmod(0o600)
    done = server.deployed("site", "-vvv", "--debug", ssh_user="other", storekeeper_secrets={"one": {"file": str(secret)}})
    assert done.code == 1
    assert "sudo does not work for other" in done.said
    assert _SECRET not in done.said


def test_root_needs_no_sudo(server: Server) -> None:
    with server.changed("mv /usr/bin/sudo /usr/bin/sudo.away", "mv /usr/bin/sudo.away /usr/bin/sudo"):
        server.well("site", ssh_user="root", storekeeper_sudo=False)


@pytest.mark.fault("G7")
@pytest.mark.parametrize("which", ["list", "status"])
def test_nobody_is_asked_for_a_password_at_a_terminal(server: Server, tmp_path: Path, which: str) -> None:
    server.declare(ssh_user="other", storekeeper_stacks=_stacks())
    report = ["--data", f"report={tmp_path / 'report.html'}"]
    words = [_PYINFRA, "-y", str(server.inventory), f"deploys/{which}.py", *report]
    said, code = _at_a_terminal(words, CHECKOUT)
    assert code == 1, said
    assert "sudo: a password is required" in said


@pytest.mark.control("G7")
def test_control_pyinfra_by_itself_waits_for_a_password(server: Server, tmp_path: Path) -> None:
    server.declare(ssh_user="other", _sudo=True)
    said, code = _at_a_terminal([_PYINFRA, "-y", str(server.inventory), "exec", "--", "id"], tmp_path, until="sudo password:")
    assert code is None, said


def _at_a_terminal(words: Sequence[str], directory: Path, until: str | None = None) -> tuple[str, int | None]:
    """What a program says that has a terminal of its own, and how it ended: None where it was still there when it had said `until`."""
    ours, its = pty.openpty()
    process = subprocess.Popen(["setsid", "--ctty", *words], cwd=directory, env=environment(), stdin=its, stdout=its, stderr=its)
    os.close(its)
    said, deadline = "", time.monotonic() + 60
    try:
        while until is None or until not in said:
            assert time.monotonic() < deadline, said
            if select.select([ours], [], [], 1)[0]:
                said += os.read(ours, 4096).decode(errors="replace")
    except OSError:  # nobody has the other side any more
        return said, process.wait(timeout=60)
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
    return said, None


def test_a_login_that_prints_something_is_told_so(server: Server) -> None:
    away = "mv /home/ops/.bashrc /home/ops/.bashrc.was"
    with server.changed(f"{away} && echo 'echo Welcome home' >/home/ops/.bashrc", "mv /home/ops/.bashrc.was /home/ops/.bashrc"):
        sentence = server.refused("list")
    assert re.match(r"each login of ops on \S+ prints 'Welcome home', which mixes with every answer: take it out of ", sentence)


# What the host is


@pytest.mark.parametrize(("shift", "direction"), [("+2 hours", "ahead of"), ("-2 hours", "behind")])
def test_a_clock_that_is_apart_is_refused(server: Server, shift: str, direction: str) -> None:
    with server.wrapped("date", f"exec /usr/bin/date -d '{shift}' \"$@\""):
        sentence = server.refused("site", **server.fresh("timeless"))
    (apart,) = re.findall(rf"the clock of preflight is (\d+) s {direction} this machine's: set it ", sentence)
    assert 7170 <= int(apart) <= 7230
    assert not server.there("/srv/timeless")


def test_a_clock_that_is_less_than_a_minute_apart_is_not(server: Server) -> None:
    with server.wrapped("date", "exec /usr/bin/date -d '-40 seconds' \"$@\""):
        assert server.well("list").reasons == ["preflight is fit: debian 12"]


def test_a_host_that_never_says_how_it_is_is_given_up(server: Server) -> None:
    with server.wrapped("date", "exec sleep 600"):
        done = server.deployed("list", storekeeper_patience=3)
        server.guest.run("pkill -x sleep")
    assert done.code == 1
    assert f"what {server.guest.address} is could not be read, so nothing was decided" in done.said


@pytest.mark.parametrize(
    ("release", "called"),
    [
        ("ID=ubuntu\nVERSION_ID=24.04", "ubuntu 24.04"),
        ("ID=alpine\nVERSION_ID=3.20.3", "alpine 3.20.3"),
        ("ID=debian\nVERSION_ID=11", "debian 11"),
        ("", "what has no name"),
    ],
)
def test_only_the_debians_that_are_known_are_provisioned(server: Server, release: str, called: str) -> None:
    with server.of_another_release(release):
        sentence = server.refused("provision", storekeeper_users={"shop": {"home": "/srv/shop"}})
    assert sentence == f"preflight runs {called}; this is made for debian 12 and 13"
    assert server.guest.run("id shop", check=False).returncode != 0


def test_the_program_is_not_limited_to_them(server: Server) -> None:
    with server.of_another_release("ID=ubuntu\nVERSION_ID=24.04"):
        assert server.well("site").reasons[0] == "preflight is fit: ubuntu 24.04"


def test_another_system_is_refused(server: Server) -> None:
    with server.wrapped("uname", 'if [ "$1" = -s ]; then echo Darwin; else exec /usr/bin/uname "$@"; fi'):
        assert server.refused("list") == "preflight runs Darwin; this is made for Linux"


@pytest.mark.fault("G11")
def test_the_deploy_says_what_starts_the_schedules(server: Server) -> None:
    assert server.well("site", storekeeper_stacks=_stacks(_CRON)).reasons[0] == "preflight is fit: debian 12, with schedules by cron"
    both = _stacks(_CRON) | _stacks(_TIMERS, "more")
    said = server.well("site", storekeeper_stacks=both).reasons[0]
    assert said == "preflight is fit: debian 12, with schedules by cron and systemd timers"
    away = "mv /run/systemd/system /run/systemd/away", "mv /run/systemd/away /run/systemd/system"
    with server.changed(*away):
        sentence = server.refused("site", storekeeper_stacks=both)
    assert sentence == "preflight is not run by systemd, which a stack declares as its scheduler: declare scheduler: {by: cron}"


@pytest.mark.fault("G11")
def test_on_the_other_debian_too(tmp_path: Path) -> None:
    with booted("trixie", name="preflight13", number=91) as guest:
        other = Target(guest, tmp_path, storekeeper_program="/opt/elsewhere", storekeeper_stacks=_stacks(_TIMERS))
        done = other.deploy("site")
        assert done.code == 0, done.said
        assert done.reasons[0] == "preflight13 is fit: debian 13, with schedules by systemd timers"
        assert "storekeeper-notes-backup.timer" in other.said("systemctl", "list-timers", "--all", "--no-legend")


@pytest.mark.control("G11")
def test_control_a_timer_on_a_host_without_systemd_starts_nothing(server: Server) -> None:
    """systemctl takes it for a system that is not booted with systemd: what is put there would stay a file."""
    with server.changed("mv /run/systemd/system /run/systemd/away", "mv /run/systemd/away /run/systemd/system"):
        done = server.guest.run("systemctl start storekeeper-notes-backup.timer", check=False)
    assert done.returncode != 0
    assert "System has not been booted with systemd" in done.stderr


# What is free


@pytest.mark.fault("G10")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("nr_inodes=100,mode=700", "has 99 inodes free, 1000 are needed to work at all: make room"),
        ("size=10m,mode=700", "has 10 MiB free, 64 are needed to work at all: make room"),
        ("ro,mode=700", "cannot be written to: is its file system read-only (findmnt --target /var/backups/storekeeper)?"),
    ],
)
def test_a_repository_in_which_nothing_can_be_put_is_refused(server: Server, options: str, sentence: str) -> None:
    with server.mounted("/var/backups/storekeeper", options):
        assert server.refused("site") == f"/var/backups/storekeeper on preflight {sentence}"


@pytest.mark.fault("G10")
@pytest.mark.parametrize("place", ["/var/lib/storekeeper", "/opt/storekeeper"])
def test_a_place_that_is_read_only_is_refused(server: Server, place: str) -> None:
    with server.mounted(place, "ro,mode=700"):
        assert server.refused("site").startswith(f"{place} on preflight cannot be written to: ")


@pytest.mark.fault("G10")
def test_a_backup_into_a_read_only_repository_says_so_and_what_is_there_can_be_listed(server: Server) -> None:
    with server.mounted("/var/backups/storekeeper", "ro,mode=700"):
        done = server.deployed("backup")
        assert done.code == 1
        assert "notes: /var/backups/storekeeper is read-only" in _sentences(done)
        server.well("list")


@contextmanager
def _full(server: Server) -> Iterator[None]:
    with server.mounted("/tmp", "size=64k,mode=1777"):
        assert server.guest.run("head -c 100000 /dev/zero >/tmp/all", check=False).returncode != 0
        yield


@pytest.mark.fault("G10")
def test_a_temporary_directory_without_room_is_not_needed(server: Server) -> None:
    assert "Program" in server.first.changed, "a release was made without it"
    with _full(server):
        assert "Stack file of notes" in server.well("site", storekeeper_stacks=_stacks("# another\n")).changed
        server.well("backup")


@pytest.mark.fault("G10")
def test_a_temporary_directory_without_exec_is_not_needed(server: Server) -> None:
    with server.mounted("/tmp", "noexec,mode=1777"):
        assert server.guest.run("printf '#!/bin/sh\n' >/tmp/try && chmod 755 /tmp/try && /tmp/try", check=False).returncode != 0
        for which in ("site", "backup", "prove"):
            server.well(which)


@pytest.mark.fault("G10")
def test_a_user_without_a_home_is_told_so_where_one_is_needed(server: Server) -> None:
    with server.changed("mv /home/ops /home/away", "mv /home/away /home/ops"):
        sentence = server.refused("site")
        assert re.match(r"ops has no home on \S+ that can be written to, and files go there first: mkhomedir_helper ops", sentence)
        server.well("backup")


@pytest.fixture
def open_mask(server: Server) -> Iterator[None]:
    """Each login has the mask 000 and the language C."""
    files = "/etc/pam.d/common-session /etc/pam.d/common-session-noninteractive"
    line = "session optional pam_umask.so umask=000"
    change = f"for file in {files}; do cp -a $file /root/ && echo '{line}' >>$file; done; echo LANG=C >/etc/environment"
    with server.changed(change, "cp -a /root/common-session* /etc/pam.d/; : >/etc/environment"):
        yield


@pytest.mark.fault("G10")
@pytest.mark.usefixtures("open_mask")
def test_with_an_open_mask_nothing_is_put_there_and_sets_are_private_all_the_same(server: Server) -> None:
    as_root = {"ssh_user": "root", "storekeeper_sudo": False}
    sentence = server.refused("site", **as_root, **server.fresh("open"))
    assert re.match(r"what root makes on \S+ can be written by everybody \(umask 000\): set UMASK 022 ", sentence)
    assert server.refused("site").startswith("what ops makes on "), "with sudo too: what is on its way belongs to the login"
    odd = server.guest.run("cd /srv/notes/papers && touch \"$(printf 'gr\\303\\274n \\377')\" && env | grep -e ^LANG -e ^LC").stdout
    assert odd == "LANG=C\n"
    server.well("backup", **as_root)
    server.well("prove", **as_root)
    server.guest.run(f"umask 000; unset HOME; {_PROGRAM} --quiet backup notes")
    places = "/var/backups/storekeeper /var/lib/storekeeper /etc/storekeeper"
    assert server.said("find", *places.split(), "-perm", "/077", "!", "-type", "l") == ""
    assert server.guest.run("ls /var/backups/storekeeper/*/*/papers/content | grep -c ^gr").stdout.strip() != "0"


@pytest.mark.control("G10")
@pytest.mark.usefixtures("open_mask")
def test_control_what_pyinfra_makes_with_an_open_mask_everybody_can_write(server: Server) -> None:
    server.declare(ssh_user="root")
    assert _typed(server, "mkdir -p /srv/anybodys/state", cwd=CHECKOUT).returncode == 0
    assert server.said("stat", "-c", "%a", "/srv/anybodys", "/srv/anybodys/state") == "777\n777"


# More than one, and a bad wire


def test_a_host_that_is_refused_stops_no_other(server: Server) -> None:
    server.declare(storekeeper_stacks=_stacks())
    (host,) = re.findall(r"^hosts = \[\(.*?, (\{.*\})\)\]$", server.inventory.read_text(encoding="utf-8"), re.MULTILINE)
    also = f"{{**{host}, 'ssh_hostname': '{server.guest.address}'"
    inventory = server.control / "two.py"
    inventory.write_text(f"hosts = [('bad', {also}, 'ssh_user': 'other'}}), ('good', {also}}})]\n", encoding="utf-8")
    done = run_deploy(inventory, "backup")
    assert done.code == 1
    assert re.search(r"^ +\[bad\]\s+sudo does not work for other on bad ", done.said, re.MULTILINE), done.said
    assert re.search(r"^ +\[good\] ok: backup  notes ", done.said, re.MULTILINE), done.said
    assert done.table["Back up notes"][0] == 1


@pytest.mark.fault("G4")
def test_over_a_wire_that_loses_a_fifth_of_all_packets_each_way_one_set_comes_to_be(server: Server) -> None:
    """A deploy that gives its wire up is run again, and finds what it began."""
    count = "ls /var/backups/storekeeper/notes | wc -l"
    before = int(server.guest.run(count).stdout)
    server.declare(storekeeper_stacks=_stacks())
    server.guest.lose(0.2)
    try:
        ended = next((done for done in (server.deploy("backup") for _ in range(4)) if done.code == 0), None)
    finally:
        server.guest.mend()
    assert ended is not None
    assert int(server.guest.run(count).stdout) == before + 1
