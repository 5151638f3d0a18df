"""Secrets and hostile words on their way to a server: whole where they belong, nowhere else to be seen, and never a word of them run."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from operations import declared
from operations.packing import pack
from storekeeper.stack.secrets import _LONGEST
from tests.deploys.fake import fake_host
from tests.harness.campaign import Campaign
from tests.harness.deploys import Deployed, environment
from tests.harness.guest import booted
from tests.harness.program import CHECKOUT
from tests.harness.sampler import Sampler
from tests.harness.target import Target
from tests.unit.test_stack_secrets import SECRETS

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

CANARIES = {name: f"canary-{name}-7e21b0" for name in ("file", "environment", "role", "open", "unplaced")}
ENCODED = [base64.b64encode(f"{canary}\n".encode()).decode() for canary in CANARIES.values()]  # as they travel
EVERYWHERE = [*CANARIES.values(), *ENCODED]
VARIABLE = "STOREKEEPER_TEST_SECRET"
PLACES = "/etc /home /opt/storekeeper /root /run /srv /tmp /usr/local /var"
UPLOADS = ".storekeeper-uploads"
PROGRAM = "/opt/storekeeper/current/bin/storekeeper"

_DEMO = "stack: demo\nstores:\n  papers: {kind: files, path: /srv/demo/papers}\nschedule: {backup: '0 3 * * *'}\n"
_DB = (
    "stack: db\nstores:\n  main: {kind: postgresql, database: app, user: app, host: 127.0.0.1,"
    " password: {file: /etc/storekeeper/secrets/by_file}}\n"
)
_STACKS = {"demo": _DEMO, "db": _DB}


class Server(Target):
    """A booted server, its secrets on the control machine, and everything that deploys have printed."""

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.printed: list[str] = []
        self.started: set[int] = set()
        self.read_by_nobody: list[str] = []

    def loud(self, which: str, variables: Mapping[str, str] | None = None, **data: str) -> Deployed:
        """A deploy that tells all it can, with these variables in its environment."""
        pairs = [word for key, value in data.items() for word in ("--data", f"{key}={value}")]
        words = [f"{sys.prefix}/bin/pyinfra", "-y", str(self.inventory), f"deploys/{which}.py", "-vvv", "--debug", *pairs]
        known = {**environment(), **({VARIABLE: CANARIES["environment"]} if variables is None else variables)}
        process = subprocess.Popen(
            words, cwd=CHECKOUT, env=known, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.started.add(process.pid)
        said, _ = process.communicate()
        self.printed.append(said)
        return Deployed(process.returncode, re.sub(r"\x1b\[[0-9;]*m", "", said))

    @contextmanager
    def watched(self, words: Sequence[str] = EVERYWHERE) -> Iterator[tuple[Sampler, Sampler]]:
        """The processes of this machine that we started, and all of the server."""
        boot = int((self.guest.lab / "servers" / self.guest.name / "pid").read_text())
        with Sampler(os.getpid(), [*words]) as here, Sampler(boot, [*words]) as there:
            yield here, there
        here.given |= self.started

    def as_nobody(self, script: str) -> str:
        return self.said("runuser", "-u", "nobody", "--", "sh", "-c", script)

    def files(self) -> str:
        """Everything that site.py looks after, with what changes when it is written to."""
        places = "/etc/storekeeper /etc/cron.d /etc/systemd/system /opt/storekeeper"
        return self.guest.run(f"find {places} -printf '%p %y %m %u %s %C@\\n' | sort").stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with booted("bookworm-py", name="secrets", number=92) as guest:
        yield Server(guest, tmp_path_factory.mktemp("control"))


def _declare(server: Server, **more: Any) -> None:
    """Every slot of an inventory that a secret can be referred to from, each with a canary."""
    references = {"by_file": server.secret("by_file", f"{CANARIES['file']}\n".encode()), "by_variable": {"env": VARIABLE}}
    role = server.secret("role", CANARIES["role"].encode())
    postgresql = {"version": 16, "roles": {"app": {"password": role}}, "databases": {"app": {"owner": "app"}}}
    known: dict[str, Any] = {"storekeeper_stacks": _STACKS, "storekeeper_secrets": references, "storekeeper_postgresql": postgresql}
    server.declare(**(known | more))


# --- Names that another user made first ------------------------------------------------------------------------------


def _foreseen(destination: str) -> str:
    """What pyinfra calls a file in /tmp that is on its way there."""
    return f"/tmp/pyinfra-{hashlib.sha1(destination.encode()).hexdigest()}"


@contextmanager
def _spying(server: Server) -> Iterator[list[str]]:
    """User nobody reads what it can of what pyinfra has in /tmp, again and again; filled when the block ends."""
    server.guest.run("rm -rf /tmp/spied && install -d -o nobody /tmp/spied")
    loop = "cd /tmp/spied; while [ ! -e end ]; do cat /tmp/pyinfra-* /home/*/.storekeeper*/* >>read 2>/dev/null; "
    loop += "echo . >>looks; sleep 0.01; done; touch ended"
    server.guest.run(f"setsid runuser -u nobody -- sh -c {shlex.quote(loop)} >/dev/null 2>&1 </dev/null &")
    read: list[str] = []
    try:
        yield read
    finally:
        server.guest.run("touch /tmp/spied/end; for n in $(seq 100); do [ ! -e /tmp/spied/ended ] || break; sleep 0.1; done")
        assert int(server.said("sh", "-c", "wc -l </tmp/spied/looks")) > 20, "it did not look: this proves nothing"
        read += server.guest.run("cat /tmp/spied/read").stdout.splitlines()


@pytest.fixture(scope="module")
def attacked(server: Server) -> Server:
    """The server as site.py made it, while another user had made every name first that could be foreseen, and looked on."""
    release = pack({"files", "postgresql"}).name
    destinations = [f"/etc/storekeeper/stacks/{name}.yml" for name in _STACKS]
    destinations += ["/etc/storekeeper/storekeeper.yml", "/etc/cron.d/storekeeper-demo", f"/opt/storekeeper/.{release}.tar"]
    names = [_foreseen(each) for each in destinations] + [f"/tmp/.storekeeper-{release}.tar", f"/tmp/{UPLOADS}", "/tmp/.storekeeper"]
    server.guest.run("mkdir -p /srv/demo/papers && echo a >/srv/demo/papers/a.txt")
    server.said(
        "runuser", "-u", "ops", "--", "sh", "-c", "echo precious >/home/ops/victim; chmod 600 /home/ops/victim; chmod 755 /home/ops"
    )
    server.as_nobody("; ".join(f"ln -s /home/ops/victim {name}" for name in names))
    _declare(server)
    with server.watched() as samplers, _spying(server) as server.read_by_nobody:
        done = server.loud("site")
    server.guest.run(f"test $(find /tmp -lname /home/ops/victim | wc -l) = {len(names)}")
    assert done.code == 0, done.said
    assert [hit for sampler in samplers for hit in sampler.hits] == []
    return server


@pytest.fixture
def deployed(attacked: Server) -> Server:
    """The same, with what is declared for it as it was then."""
    _declare(attacked)
    return attacked


@pytest.mark.fault("H11")
def test_names_that_another_user_made_first_lead_nowhere_and_what_is_sent_is_not_read(deployed: Server) -> None:
    assert deployed.said("cat", "/home/ops/victim") == "precious"
    assert deployed.read_by_nobody == []
    assert deployed.said("stat", "-c", "%U %a", f"/home/ops/{UPLOADS}") == "ops 700"
    assert deployed.guest.run(f"ls -A /home/ops/{UPLOADS}; ls -d /home/ops/.storekeeper-*.tar", check=False).stdout == ""
    assert deployed.said("stat", "-c", "%U %a", "/etc/storekeeper/secrets") == "root 700"
    modes = deployed.said("sh", "-c", "stat -c '%U %a' /etc/storekeeper/secrets/* | sort -u")
    assert modes == "root 600"
    again = deployed.loud("site")
    assert (again.code, again.changed) == (0, []), again.said


_PLAIN = """
from io import StringIO
from pyinfra.operations import files
files.put(name="Private", src=StringIO("what is private\\n"), dest="/etc/plain", mode="600", _sudo=True)
files.put(name="Open", src={open!r}, dest="/etc/open", mode="600", _sudo=True)
files.put(name="Led", src=StringIO("elsewhere\\n"), dest="/etc/led", mode="600", _sudo=True)
"""


@pytest.mark.control("H11")
@pytest.mark.control("H9")
def test_control_pyinfra_by_itself_puts_files_by_way_of_names_that_others_know_and_takes_any_secret(server: Server) -> None:
    """Where the kernel does not follow such links (fs.protected_symlinks), the deploy ends there instead: another user can stop it."""
    server.declare()
    open_file = server.secret("for_all", b"", mode=0o644)["file"]
    (server.control / "plain.py").write_text(_PLAIN.format(open=open_file))
    server.said("runuser", "-u", "ops", "--", "sh", "-c", "echo precious >/home/ops/led")
    server.as_nobody(f"ln -s /home/ops/led {_foreseen('/etc/led')}")
    words = [f"{sys.prefix}/bin/pyinfra", "-y", str(server.inventory), "plain.py"]
    with _spying(server) as read:
        done = subprocess.run(words, cwd=server.control, env=environment(), capture_output=True, check=False, stdin=subprocess.DEVNULL)
    server.guest.run(f"rm -f {_foreseen('/etc/led')}")
    assert "what is private" in read
    assert server.said("cat", "/home/ops/led") == "elsewhere" or done.returncode != 0
    assert server.said("stat", "-c", "%s", "/etc/open") == "0", "an empty secret that everybody can read"


# --- Nowhere to be seen ----------------------------------------------------------------------------------------------


def _runs(server: Server) -> Iterator[tuple[int, Deployed]]:
    """Every deploy, with the code that it should end with: those that work, and those that fail in their own ways."""
    yield 0, server.loud("show")
    yield 1, server.loud("drift")  # Debian 12 does not have the declared version, of which both speak
    yield 1, server.loud("provision")
    yield 0, server.loud("backup", stack="demo")
    yield 0, server.loud("verify", stack="demo")
    yield 0, server.loud("prove", stack="demo")
    yield 0, server.loud("list")
    yield 0, server.loud("restore", stack="demo", set="latest", plan="yes", nobody_uses="papers")
    yield 0, server.loud("restore", stack="demo", set="latest", confirm="demo@secrets", nobody_uses="papers")
    yield 1, server.loud("restore", stack="demo", set="latest", confirm="demo@another", nobody_uses="papers")
    yield 0, server.loud("prune", plan="yes")
    yield 1, server.loud("backup", stack="db")
    yield 0, server.loud("status", report=str(server.control / "report.html"))
    yield 0, server.loud("jobs")
    yield from _secrets_that_cannot_be_put(server)


def _secrets_that_cannot_be_put(server: Server) -> Iterator[tuple[int, Deployed]]:
    unplaced = {"unplaced": server.secret("unplaced", CANARIES["unplaced"].encode())}
    _declare(server, storekeeper_secrets=unplaced)
    server.said("mkdir", "-p", "/etc/storekeeper/secrets/unplaced/in_its_place")
    yield 1, server.loud("site")
    server.said("rm", "-r", "/etc/storekeeper/secrets/unplaced")
    opened = server.secret("opened", CANARIES["open"].encode(), mode=0o644)
    _declare(server, storekeeper_secrets={"opened": opened})
    yield 1, server.loud("site")
    literal = {"storekeeper_secrets": {"in_the_inventory": CANARIES["open"]}}
    _declare(server, **literal)
    yield 1, server.loud("site")
    _declare(server, storekeeper_secrets=CANARIES["open"])
    yield 1, server.loud("site")


def _found_on(server: Server, words: list[str]) -> list[str]:
    """The files of the server that hold one of them, and the journal if it does."""
    patterns = " ".join(f"-e {shlex.quote(word)}" for word in words)
    found = server.guest.run(f"grep -rlF -D skip {patterns} {PLACES}", check=False).stdout.splitlines()
    journal = server.guest.run("journalctl --no-pager -o export").stdout
    return [*found, *(f"journal: {word}" for word in words if word in journal)]


@pytest.mark.fault("H7")
def test_no_secret_is_seen_in_processes_in_what_is_said_or_in_any_file_of_both_sides(deployed: Server, campaign: Campaign) -> None:
    with deployed.watched() as (here, inside):
        ended = list(_runs(deployed))
    assert [done.said[-600:] for expected, done in ended if done.code != expected] == []
    found = [f"seen here: {hit}" for hit in sorted(here.hits)] + [f"seen there: {hit}" for hit in sorted(inside.hits)]
    found += [f"printed: {word}" for word in EVERYWHERE for said in deployed.printed if word in said]
    own = {f"/etc/storekeeper/secrets/{name}" for name in ("by_file", "by_variable")}
    there = _found_on(deployed, EVERYWHERE)
    found += [f"there: {each}" for each in there if each not in own]
    kept = [path for path in deployed.control.rglob("*") if path.is_file() and path != deployed.inventory]
    kept += [path for path in (CHECKOUT / "pyinfra-debug.log",) if path.exists()]
    found += [f"here: {path}" for path in kept if any(word.encode() in path.read_bytes() for word in EVERYWHERE)]
    looks = f"{here.samples + inside.samples:,} looks at the processes of both sides"
    campaign.found(len(deployed.printed), f"deploys over SSH with -vvv and --debug, a canary in every slot ({looks})", f"{len(found)} seen")
    assert found == []
    assert own <= set(there), "and where they belong they are"
    assert {path.name for path in kept} >= {"report.html", "report.json"}
    assert any("python" in each for each in here.programs), here.programs
    assert any(each.startswith("sshd") for each in inside.programs), inside.programs
    assert {"sh", "sudo", "python3"} <= inside.programs, "the sampler saw no programs: this proves nothing"


@pytest.mark.control("H7")
def test_control_a_secret_in_an_argument_or_a_file_of_the_server_is_found(server: Server) -> None:
    word = "canary-control-7e21b0"
    with server.watched([word]) as (_, sampler):
        server.guest.run(f"sh -c ': {word}; sleep 0.1; true'; LEAK={word} sleep 0.1; echo {word} >/var/tmp/leak; echo {word} | systemd-cat")
        time.sleep(0.1)
    assert sampler.hits >= {"arguments of sh", "environment of sleep"}
    assert {"/var/tmp/leak", f"journal: {word}"} <= set(_found_on(server, [word]))
    server.guest.run("rm /var/tmp/leak")


# --- Every shape of a secret -----------------------------------------------------------------------------------------


def _shapes() -> dict[str, str]:
    shapes = {**SECRETS, "a backslash last": "ends\\", "only a quote": "'", "the longest": "ж" * (_LONGEST // 2 - 1)}
    return {re.sub("[^a-z0-9]", "_", name): secret for name, secret in shapes.items()}


@pytest.mark.fault("H8")
def test_a_secret_of_any_signs_arrives_byte_for_byte(deployed: Server, campaign: Campaign) -> None:
    shapes = _shapes()
    references: dict[str, dict[str, str]] = {}
    for name, secret in shapes.items():
        references[f"file_{name}"] = deployed.secret(name, secret.encode())
        references[f"variable_{name}"] = {"env": f"SHAPE_{name}".upper()}
    _declare(deployed, storekeeper_secrets=references)
    variables = {f"SHAPE_{name}".upper(): secret for name, secret in shapes.items()}
    done = deployed.loud("site", variables)
    assert (done.code, done.changed) == (0, ["Secrets"]), done.said
    said = deployed.said("sh", "-c", "cd /etc/storekeeper/secrets && sha256sum file_* variable_*").splitlines()
    arrived = {line.split()[1]: line.split()[0] for line in said}
    wanted = {
        f"{how}_{name}": hashlib.sha256(f"{secret}\n".encode()).hexdigest()
        for name, secret in shapes.items()
        for how in ("file", "variable")
    }
    whole = sum(arrived.get(name) == digest for name, digest in wanted.items())
    campaign.found(len(wanted), "secrets of all signs put on a server", f"{whole} arrive byte for byte")
    assert arrived == wanted
    again = deployed.loud("site", variables)
    assert (again.code, again.changed) == (0, [])
    deployed.guest.run("rm /etc/storekeeper/secrets/file_* /etc/storekeeper/secrets/variable_*")


@pytest.mark.fault("H8")
@pytest.mark.parametrize("data", [b"two\nlines", b"a return\r", b"a NUL\0", b"\xff", b"x" * (_LONGEST + 1)], ids=ascii)
def test_what_would_have_to_be_cut_is_refused_and_not_cut(server: Server, data: bytes) -> None:
    reference = server.secret("refused", data)
    with fake_host(storekeeper_secrets={"shape": reference}) as fake, pytest.raises(SystemExit, match="the secret shape") as refusal:
        declared.put_secrets(fake.host)
    assert reference["file"] in str(refusal.value)
    assert len(str(refusal.value)) < 300


@pytest.mark.control("H8")
def test_control_a_secret_that_is_typed_arrives_as_something_else(server: Server) -> None:
    for name in ("single quote", "dollar", "backslash", "backtick", "spaces around"):
        typed = server.guest.run(f"printf '%s\\n' {SECRETS[name]} >/root/typed && cat /root/typed; rm -f /root/typed", check=False)
        assert typed.stdout != f"{SECRETS[name]}\n", name


# --- References that lead to nothing good ----------------------------------------------------------------------------


def _bad_references(server: Server) -> dict[str, tuple[dict[str, str], str]]:
    directory = Path(server.secret("empty", b"")["file"]).with_name("directory")
    directory.mkdir(exist_ok=True)
    return {
        "missing": ({"file": str(directory / "nowhere")}, "cannot be read: No such file or directory"),
        "empty": (server.secret("empty", b""), "is empty"),
        "open": (server.secret("open", b"x\n", mode=0o644), "has mode 0644"),
        "directory": ({"file": str(directory)}, "is a directory"),
        "unset": ({"env": "STOREKEEPER_TEST_UNSET"}, "STOREKEEPER_TEST_UNSET is not set or empty"),
    }


@pytest.mark.fault("H9")
@pytest.mark.parametrize("kind", ["missing", "empty", "open", "directory", "unset"])
def test_a_reference_to_no_good_secret_is_named_and_nothing_changes_on_the_server(deployed: Server, kind: str) -> None:
    reference, sentence = _bad_references(deployed)[kind]
    before = deployed.files()
    good = deployed.secret("good", b"good\n")
    more = _DEMO.replace("0 3", "5 3")
    _declare(deployed, storekeeper_secrets={"first": good, "probed": reference}, storekeeper_stacks={"demo": more})
    refused = deployed.deploy("site")
    assert refused.code == 1
    for words in ("the secret probed", sentence, *reference.values()):
        assert words in refused.said
    assert "Starting operation" not in refused.said
    server = {"version": 15, "roles": {"app": {"password": reference}}}
    with fake_host(storekeeper_postgresql=server) as fake, pytest.raises(SystemExit, match=f"the password of app.*{re.escape(sentence)}"):
        declared.passwords(fake.host)
    assert deployed.files() == before
