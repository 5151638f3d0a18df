"""A server of one stack on which each part of the ground can be taken away for a while."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness.deploys import Deployed, environment
from tests.harness.guest import booted
from tests.harness.target import Target

_STACK = "stack: {name}\nstores: {{papers: {{kind: files, path: /srv/notes/papers}}}}\n"
CRON = "schedule: {backup: '0 3 * * *'}\nscheduler: {by: cron}\n"
TIMERS = "schedule: {backup: '0 3 * * *'}\nscheduler: {by: systemd}\n"
PYINFRA = f"{sys.prefix}/bin/pyinfra"
SECRET = "a-secret-that-nobody-sees"
KEY = "/etc/ssh/ssh_host_ed25519_key"
ANEW = "systemctl reset-failed ssh; systemctl restart ssh"  # systemd starts nothing six times in ten seconds


def stacks(more: str = "", name: str = "notes") -> dict[str, str]:
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
        self.declare(**{"storekeeper_stacks": stacks(), **data})
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
        (sentence,) = sentences(done)
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


def sentences(done: Deployed) -> list[str]:
    """What is said of hosts, but for pyinfra's own words that it reached one and did nothing there."""
    said = re.findall(r"^ +\[[^]]+\] (.*)$", done.said, re.MULTILINE)
    return [line for line in said if not re.match(r"Connected$|Ready: |Error: executed 0 commands", line)]


def typed(target: Target, command: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """A command on the hosts by pyinfra alone, without a deploy of ours."""
    argv = [PYINFRA, "-y", str(target.inventory), "exec", "--", command]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **settings)


@contextmanager
def full(server: Server) -> Iterator[None]:
    with server.mounted("/tmp", "size=64k,mode=1777"):
        assert server.guest.run("head -c 100000 /dev/zero >/tmp/all", check=False).returncode != 0
        yield


@contextmanager
def ready(name: str, number: int, control: Path) -> Iterator[Server]:
    """Boots it, with the program on it."""
    with booted("bookworm-py", name=name, number=number) as guest:
        server = Server(guest, control)
        guest.run("mkdir -p /srv/notes/papers && echo hello >/srv/notes/papers/a")
        guest.run("useradd -m -s /bin/bash other && cp -a /home/ops/.ssh /home/other/ && chown -R other: /home/other")
        # a login without a home still has its key
        guest.run("cp /root/.ssh/authorized_keys /etc/ssh/all && chmod 644 /etc/ssh/all")
        guest.run(f"echo 'AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/all' >/etc/ssh/sshd_config.d/all.conf; {ANEW}")
        with full(server):
            server.first = server.well("site")
        yield server
