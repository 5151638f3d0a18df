"""Packages of a real Debian 12: another source by declaration, refused before anything is installed, and minor updates by night."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from operations.postgresql.model import Source
from operations.postgresql.packages import public_key
from tests.harness.debs import SUITE, Index, Key, made, pgvector, repacked
from tests.harness.guest import booted
from tests.harness.target import Target

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

UPDATE = "/usr/local/sbin/storekeeper-update-postgresql"
SOURCE = "/etc/apt/sources.list.d/storekeeper-postgresql.sources"
VECTOR = {"owner": "shop", "extensions": ["vector"]}
STACK = "stack: shop\nstores:\n  orders: {kind: postgresql, database: shop, user: shop}\nbackup: {keep: {at_least: 9}}\n"

# It takes apt's locks until somebody comes to wait for them, and two seconds more for each.
_HOLDER = """
import fcntl, os, time
locks = [open(path, "w") for path in ("/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock")]
for lock in locks:
    fcntl.lockf(lock, fcntl.LOCK_EX)
open("/run/held", "w").close()
until = time.monotonic() + 60
while not os.path.exists("/run/storekeeper-source") and time.monotonic() < until:
    time.sleep(0.05)
for lock in locks:
    time.sleep(2)
    lock.close()
open("/run/released", "w").close()
"""


class Server(Target):
    """A server, the index that is declared for it, and what its scripts say."""

    def __init__(self, guest: Any, control: Path, key: Key, index: Index, uri: str) -> None:
        self.key, self.index, self.uri = key, index, uri
        super().__init__(guest, control)
        self.password = control / "password"
        self.password.write_text("a secret\n")
        self.password.chmod(0o600)

    @property
    def disk(self) -> Path:
        return self.guest.lab / "servers" / self.guest.name / "root"

    def source(self, **other: str) -> dict[str, str]:
        return {"uri": self.uri, "suite": SUITE, "key": str(self.key.public), **other}

    def declare_server(self, **more: Any) -> None:
        self.declare(
            storekeeper_postgresql={
                "version": 15,
                "memory_share": 0.02,
                "roles": {"shop": {"password": {"file": str(self.password)}}},
                "databases": {"shop": VECTOR},
                **more,
            },
            storekeeper_users={"shop": {"home": "/srv/shop"}},
            storekeeper_stacks={"shop": STACK},
        )

    def packages(self) -> dict[str, str]:
        """What is installed, with its version and in which state."""
        lines = self.said("dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}${Version}\n").splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def sql(self, statement: str) -> str:
        return self.said("runuser", "-u", "postgres", "--", "psql", "-XAtqc", statement, "shop")

    def sets(self) -> list[str]:
        answer = json.loads(self.said("/opt/storekeeper/current/bin/storekeeper", "--json", "list", "shop"))
        return [each["state"] for each in answer["result"]["sets"]]

    def update(self) -> subprocess.CompletedProcess[str]:
        """The script as cron starts it, with even less around it."""
        return self.guest.run(f"env -i {UPDATE}", check=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    control = tmp_path_factory.mktemp("control")
    with ExitStack() as stack:
        key = Key(control, "declared")
        stack.callback(key.close)
        index = Index(tmp_path_factory.mktemp("index"), key)
        index.publish(pgvector(number=95))
        guest = stack.enter_context(booted("bookworm", name="packages", number=94))
        # apt waits six seconds for whom nobody serves, and dpkg for the disk
        guest.run("echo 'Acquire::Retries \"0\";' >/etc/apt/apt.conf.d/99retries; echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/lab")
        uri = stack.enter_context(index.served(f"{guest.address.rpartition('.')[0]}.1"))
        yield Server(guest, control, key, index, uri)


def _known_to_apt(server: Server) -> str:
    return server.guest.run("find /etc/apt -type f | sort | xargs sha256sum").stdout


def test_an_extension_that_debian_12_does_not_package_and_updates_without_a_set_are_refused_at_once(
    server: Server,
) -> None:
    before = server.packages()
    server.declare_server()
    refused = server.deploy("provision")
    assert refused.code == 1
    assert "Debian 12 has no package of vector, which databases.shop declares: declare a source of packages that has it" in refused.said
    server.declare(storekeeper_postgresql={"version": 15, "updates": "17 4 * * *"})
    refused = server.deploy("provision")
    assert refused.code == 1
    assert "updates: no stack with PostgreSQL is declared, to take a set of first" in refused.said
    assert server.packages() == before


def test_a_source_that_cannot_be_used_is_refused_and_apt_knows_what_it_knew_before(server: Server, tmp_path: Path) -> None:
    """Control: with the same source put into place unasked, apt cannot read its index any more."""
    other = Key(tmp_path, "another")
    other.close()
    empty = Index(tmp_path / "empty", server.key)
    empty.publish()
    address = server.uri.rpartition(":")[0].removeprefix("http://")
    before = server.packages(), _known_to_apt(server)
    nobody = "http://127.0.0.1:9"
    with empty.served(address) as without:
        for source, sentence in (
            (server.source(key=str(other.public)), f"{server.uri} {SUITE} is not signed with the declared key, nothing was installed"),
            (server.source(uri=nobody), f"the source of packages {nobody} {SUITE} could not be read, nothing was installed"),
            (
                server.source(uri=without),
                f"postgresql-15 and postgresql-15-pgvector cannot be installed with the source of packages {without}",
            ),
        ):
            server.declare_server(source=source)
            refused = server.deploy("provision")
            assert (refused.code, sentence in refused.said) == (1, True), refused.said
            assert (server.packages(), _known_to_apt(server)) == before, sentence
    update = "apt-get -qq --error-on=any update"
    server.guest.run(update)
    server.guest.run(f"printf 'Types: deb\\nURIs: {nobody}\\nSuites: lab\\nComponents: main\\n' >{SOURCE}")
    assert server.guest.run(update, check=False).returncode != 0
    server.guest.run(f"rm {SOURCE}")


def test_what_is_no_public_key_in_letters_never_leaves_this_machine(server: Server, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x99\x01\x8d")
    for path, sentence in (
        (server.key.private, "is no public key in letters: write it with gpg --armor --export"),
        (tmp_path / "binary", "is no public key in letters"),
        (tmp_path / "none", "could not be read: No such file or directory"),
    ):
        with pytest.raises(ValueError, match=sentence):
            public_key(Source(**server.source(key=str(path))))
    assert public_key(Source(**server.source())) == server.key.public.read_text()


def test_an_interrupted_installation_is_named_with_the_command_that_ends_it_and_nothing_is_begun(server: Server, tmp_path: Path) -> None:
    """A package whose script kills dpkg the first time, fails the second, and works the third."""
    script = 'echo x >>/run/tries; case $(wc -l </run/tries) in 1) kill -9 "$PPID" ;; 2) exit 1 ;; esac'
    made(server.disk / "root/odd.deb", "lab-odd", postinst=script)
    server.declare_server(source=server.source())
    assert server.guest.run("dpkg -i /root/odd.deb", check=False).returncode != 0
    for kind, sentence in (
        ("killed", "packages cannot be changed: E: dpkg was interrupted, you must manually run"),
        ("half done", "an installation was interrupted (lab-odd): dpkg --configure -a"),
    ):
        before = server.packages(), _known_to_apt(server)
        refused = server.deploy("provision")
        assert (refused.code, sentence in refused.said, "dpkg --configure -a" in refused.said) == (1, True, True), (kind, refused.said)
        assert (server.packages(), _known_to_apt(server)) == before
        server.guest.run("dpkg --configure -a", check=False)
    assert server.packages()["lab-odd"] == "ii 1"


def test_a_declared_source_brings_the_extension_and_another_apt_is_waited_for(server: Server) -> None:
    """Control: apt-get that is not told to wait gives up at once."""
    server.declare_server(source=server.source(), updates="17 4 * * *")
    (server.disk / "root/holder.py").write_text(_HOLDER, encoding="ascii")
    server.guest.run("nohup python3 /root/holder.py >/dev/null 2>&1 & for n in $(seq 100); do test -e /run/held && break; sleep .05; done")
    impatient = server.guest.run("apt-get -qq -y install lab-odd", check=False)
    assert "Could not get lock /var/lib/dpkg/lock-frontend" in impatient.stderr
    done = server.deploy("provision")
    assert done.code == 0, done.said
    assert server.guest.run(f"test {SOURCE} -nt /run/released && echo waited").stdout == "waited\n"
    assert server.sql("select '[1,2,3]'::vector <-> '[1,2,5]'") == "2"
    assert server.said("cat", "/etc/cron.d/storekeeper-update-postgresql").splitlines()[-1] == f"17 4 * * * root {UPDATE}"


@pytest.mark.fault("G8")
def test_a_second_run_with_source_and_updates_changes_nothing_and_a_file_that_was_changed_by_hand_is_put_back(server: Server) -> None:
    server.declare_server(source=server.source(), updates="17 4 * * *")
    first = server.deploy("provision")
    assert first.code == 0, first.said
    again = server.deploy("provision")
    assert (again.code, again.changed) == (0, []), again.said
    server.guest.run(f"echo '# by hand' >>{SOURCE}")
    mended = server.deploy("provision")
    assert (mended.code, mended.changed) == (0, ["Source of the packages"]), mended.said
    assert "by hand" not in server.said("cat", SOURCE)


def _published(server: Server, package: str, revision: int, spoiled: str | None = None) -> str:
    """A newer version of an installed package is in the index; returns the version."""
    (original,) = (each for each in (server.disk / "var/cache/apt/archives").glob(f"{package}_*.deb") if "lab" not in each.name)
    version = f"{original.name.split('_')[1]}+lab{revision}"
    target = server.control / f"{package}_{version}.deb"
    server.index.publish(repacked(original, target, version, spoiled))
    return version


def test_an_update_takes_a_set_first_then_only_what_is_declared_and_asks_every_store_after_in_silence(server: Server) -> None:
    site = server.deploy("site")
    assert site.code == 0, site.said
    nothing = server.update()
    assert (nothing.returncode, nothing.stdout, nothing.stderr, server.sets()) == (0, "", "", [])
    server.sql("set role shop; create table orders (id int); insert into orders values (1), (2)")
    version = _published(server, "postgresql-15", 1)
    _published(server, "logrotate", 1)
    before, started = server.packages(), server.sql("select pg_postmaster_start_time()")
    # with a policy by which packages may not restart a service; a second run begins while the first is at it
    server.guest.run("printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d")
    both = server.guest.run(
        f"env -i {UPDATE} & first=$!; for n in $(seq 200); do pgrep -x apt-get >/dev/null && break; sleep .02; done; "
        f"env -i {UPDATE}; echo second $?; wait $first; echo first $?"
    )
    server.guest.run("rm /usr/sbin/policy-rc.d")
    assert both.stdout == "second 1\nfirst 0\n", both.stderr
    assert both.stderr == "storekeeper: update of PostgreSQL: another update is at work; nothing was changed\n"
    after = server.packages()
    assert {name: after[name] for name in after if after[name] != before.get(name)} == {"postgresql-15": f"ii {version}"}
    assert server.sets() == ["verified"]
    assert server.sql("select pg_postmaster_start_time()") != started
    assert server.sql("select count(*) from orders") == "2"
    journal = server.said("journalctl", "-q", "--no-pager", "-o", "cat", "-t", "storekeeper").splitlines()
    assert journal[-1].endswith(f"-> postgresql-15={version} postgresql-15-pgvector=0.8.0-1"), journal
    nothing = server.update()
    assert (nothing.returncode, nothing.stdout, nothing.stderr, server.sets()) == (0, "", "", ["verified"])
    assert server.said("journalctl", "-q", "--no-pager", "-o", "cat", "-t", "storekeeper").splitlines() == journal


def test_without_a_set_nothing_is_updated_and_an_update_after_which_a_store_is_silent_says_the_way_back(server: Server) -> None:
    spoiled = _published(server, "postgresql-15", 2, spoiled="usr/lib/postgresql/15/bin/postgres")
    before = server.packages()
    server.sql("alter role shop nologin")
    refused = server.update()
    assert (refused.returncode, server.packages(), server.sets()) == (1, before, ["verified"])
    assert "no set of shop could be taken first; nothing was changed" in refused.stderr
    server.sql("alter role shop login")
    failed = server.update()
    assert (failed.returncode, failed.stdout, server.sets()) == (1, "", ["verified", "verified"])
    assert spoiled in server.packages()["postgresql-15"]
    assert "shop does not answer as it did before; the set taken first is the newest" in failed.stderr
    _, said, back = failed.stderr.partition("the way back is: ")
    assert said, failed.stderr
    back = back.partition("; ")[0]
    assert before["postgresql-15"].removeprefix("ii ") in back
    server.guest.run(back)
    assert server.sql("select count(*) from orders") == "2"
    held = server.update()
    assert (held.returncode, server.sets()) == (1, ["verified", "verified"])
    assert "apt-mark unhold postgresql-15" in held.stderr


def test_an_index_that_cannot_be_read_and_a_half_done_installation_end_an_update_before_anything(server: Server) -> None:
    before, sets = server.packages(), server.sets()
    server.guest.run(f"cp {SOURCE} /root/source && sed -i 's|^URIs:.*|URIs: http://127.0.0.1:9|' {SOURCE}")
    unread = server.update()
    assert (unread.returncode, server.packages(), server.sets()) == (1, before, sets)
    assert "the index of packages could not be read; nothing was changed" in unread.stderr
    server.guest.run(f"cp /root/source {SOURCE}; rm /run/tries; echo >/run/tries; dpkg -i /root/odd.deb", check=False)
    half = server.update()
    assert half.returncode == 1
    assert "nothing was changed: an installation was interrupted (lab-odd): dpkg --configure -a" in half.stderr
    server.guest.run("dpkg --configure -a")


def test_what_is_declared_no_longer_is_removed(server: Server) -> None:
    server.declare_server()
    done = server.deploy("provision")
    assert done.code == 0, done.said
    assert sorted(done.changed) == ["No /etc/cron.d/storekeeper-update-postgresql", f"No {UPDATE}", "Source of the packages"]
    gone = shlex.join([SOURCE, "/etc/apt/keyrings/storekeeper-postgresql.asc", UPDATE, "/etc/cron.d/storekeeper-update-postgresql"])
    assert server.guest.run(f"ls {gone}", check=False).stdout == ""
    assert server.sql("select '[1,2,3]'::vector <-> '[1,2,5]'") == "2"
    assert server.deploy("provision").changed == []
