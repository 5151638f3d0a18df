"""Who a host is known to be and who logs in, on a booted Debian 12 over SSH: keys, sudo and passwords, each refusal in one sentence."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.deploys import environment
from tests.harness.guest import CHECKOUT, Guest
from tests.harness.target import Target
from tests.servers.unfit import ANEW, KEY, PYINFRA, SECRET, Server, ready, stacks, typed

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ready("logins", 76, tmp_path_factory.mktemp("control")) as server:
        yield server


# Who answers


@contextmanager
def _another_key(guest: Guest) -> Iterator[None]:
    """The server has another key, as if somebody else answered at its address."""
    known = guest.lab / "servers" / guest.name / "known_hosts"
    before = known.read_text(encoding="utf-8")
    guest.run(f"cp -a {KEY} {KEY}.was; rm {KEY}; ssh-keygen -q -t ed25519 -N '' -f {KEY}; {ANEW}")
    key = (guest.lab / "servers" / guest.name / f"root{KEY}.pub").read_text(encoding="utf-8")
    known.write_text(f"{guest.address} {key}", encoding="utf-8")
    try:
        yield
    finally:
        guest.run(f"mv {KEY}.was {KEY}; ssh-keygen -y -f {KEY} >{KEY}.pub; {ANEW}")
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
    server.declare(ssh_known_hosts_file=str(file), storekeeper_stacks=stacks())
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
        done = typed(server, "touch /tmp/believed", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert server.guest.run("rm /tmp/believed").returncode == 0
    assert server.guest.address in file.read_text(encoding="utf-8"), "and will believe him from now on"


@pytest.mark.control("G6")
@pytest.mark.fault("G6")
def test_an_inventory_that_wants_any_key_believed_is_refused_where_pyinfra_does_as_it_says(server: Server, tmp_path: Path) -> None:
    lenient = {"ssh_known_hosts_file": os.devnull, "ssh_strict_host_key_checking": "no"}
    with _another_key(server.guest):
        server.declare(**lenient)
        done = typed(server, "touch /tmp/believed", cwd=CHECKOUT)
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
    secret.write_text(SECRET, encoding="utf-8")
    secret.chmod(0o600)
    done = server.deployed("site", "-vvv", "--debug", ssh_user="other", storekeeper_secrets={"one": {"file": str(secret)}})
    assert done.code == 1
    assert "sudo does not work for other" in done.said
    assert SECRET not in done.said


def test_root_needs_no_sudo(server: Server) -> None:
    with server.changed("mv /usr/bin/sudo /usr/bin/sudo.away", "mv /usr/bin/sudo.away /usr/bin/sudo"):
        server.well("site", ssh_user="root", storekeeper_sudo=False)


@pytest.mark.fault("G7")
@pytest.mark.parametrize("which", ["list", "status"])
def test_nobody_is_asked_for_a_password_at_a_terminal(server: Server, tmp_path: Path, which: str) -> None:
    server.declare(ssh_user="other", storekeeper_stacks=stacks())
    report = ["--data", f"report={tmp_path / 'report.html'}"]
    words = [PYINFRA, "-y", str(server.inventory), f"deploys/{which}.py", *report]
    said, code = _at_a_terminal(words, CHECKOUT)
    assert code == 1, said
    assert "sudo: a password is required" in said


@pytest.mark.control("G7")
def test_control_pyinfra_by_itself_waits_for_a_password(server: Server, tmp_path: Path) -> None:
    server.declare(ssh_user="other", _sudo=True)
    said, code = _at_a_terminal([PYINFRA, "-y", str(server.inventory), "exec", "--", "id"], tmp_path, until="sudo password:")
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
