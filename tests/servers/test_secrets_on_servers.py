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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import Host

from operations import declared
from operations.facts.ground import Ground
from operations.facts.release import Releases
from operations.facts.schedule import Schedules
from operations.packing import pack
from operations.program import Program
from operations.schedule import cron_lines
from storekeeper.stack.secrets import _LONGEST
from tests.deploys.fake import Fake, fake_host
from tests.faults.test_hostile_names import HOSTILE, MARK
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

    def secret(self, name: str, data: bytes, mode: int = 0o600) -> dict[str, str]:
        """A reference to a file of this machine that holds it."""
        directory = self.control.parent / f"{self.control.name}-secrets"
        directory.mkdir(mode=0o700, exist_ok=True)
        file = directory / name
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        file.chmod(mode)
        return {"file": str(file)}

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

    def marks(self) -> list[str]:
        """Where a hostile word was run, on either side."""
        there = self.guest.run(f"find / -xdev -name {MARK}; find /tmp /run -name {MARK}").stdout.split("\n")
        here = [path for place in (CHECKOUT, self.control, Path.cwd(), Path.home()) for path in place.glob(MARK)]
        return [*filter(None, there), *map(str, here)]


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


# --- Hostile words ---------------------------------------------------------------------------------------------------

_RUNS_IN_A_SHELL = ("a second command", "a substitution", "backticks", "an option")


def _server_of(**more: Any) -> dict[str, Any]:
    return {"storekeeper_postgresql": {"version": 15, "roles": {"a": {}}, "databases": {"a": {"owner": "a"}}, **more}}


def _log_of(**more: Any) -> dict[str, Any]:
    return {"storekeeper_logs": {"a": {"files": ["/srv/a"], **more}}}


Data = Callable[[str], dict[str, Any]]
_PATHS: dict[str, Data] = {  # by the words that an error names; what is a path may hold any sign but controls, and none of it is run
    **{
        key: (lambda word, key=key: {key: f"/srv/{word}"})
        for key in sorted(set(declared.DEFAULTS) - {"storekeeper_user", "storekeeper_releases"})
    },  # type: ignore[misc]
    "storekeeper_program": lambda word: {"storekeeper_program": f"/srv/{word}"},
    "storekeeper_users.a.home": lambda word: {"storekeeper_users": {"a": {"home": f"/srv/{word}"}}},
    "storekeeper_users.a.shell": lambda word: {"storekeeper_users": {"a": {"shell": f"/srv/{word}"}}},
    "storekeeper_directories": lambda word: {"storekeeper_directories": {f"/srv/{word}": {}}},
}
_WORDS: dict[str, Data] = {
    "the stack file of 'demo'|stack demo": lambda word: {"storekeeper_stacks": {"demo": word}},
    "the inventory calls it": lambda word: {"storekeeper_stacks": {word: _DEMO}},
    "storekeeper_program": lambda word: {"storekeeper_program": word},
    "storekeeper_user": lambda word: {"storekeeper_user": word},
    "storekeeper_sudo": lambda word: {"storekeeper_sudo": word},
    "storekeeper_wheelhouse": lambda word: {"storekeeper_wheelhouse": word},
    "storekeeper_patience": lambda word: {"storekeeper_patience": word},
    "storekeeper_users": lambda word: {"storekeeper_users": {word: {}}},
    "storekeeper_users.a.groups": lambda word: {"storekeeper_users": {"a": {"groups": [word]}}},
    "storekeeper_directories": lambda word: {"storekeeper_directories": {word: {}}},
    "storekeeper_directories./srv/a.user": lambda word: {"storekeeper_directories": {"/srv/a": {"user": word}}},
    "storekeeper_directories./srv/a.mode": lambda word: {"storekeeper_directories": {"/srv/a": {"mode": word}}},
    "storekeeper_logs": lambda word: {"storekeeper_logs": {word: {"files": ["/srv/a"]}}},
    "storekeeper_logs.a.files": lambda word: _log_of(files=[f"/../{word}"]),
    "storekeeper_logs.a.user": lambda word: _log_of(user=word),
    "storekeeper_logs.a.every": lambda word: _log_of(every=word),
    "storekeeper_logs.a.keep": lambda word: _log_of(keep=word),
    "storekeeper_secrets": lambda word: {"storekeeper_secrets": {word: {"env": "HOME"}}},
    "storekeeper_secrets.a.env": lambda word: {"storekeeper_secrets": {"a": {"env": word}}},
    "storekeeper_secrets.a.file|the secret a": lambda word: {"storekeeper_secrets": {"a": {"file": f"/srv/{word}"}}},
    **{
        f"storekeeper_postgresql.{key}": (lambda word, key=key: _server_of(**{key: word}))
        for key in ("version", "cluster", "port", "listen")
    },  # type: ignore[misc]
    **{
        f"storekeeper_postgresql.{key}": (lambda word, key=key: _server_of(**{key: word}))  # type: ignore[misc]
        for key in ("memory_share", "max_connections", "backup_role", "monitoring_role", "updates")
    },
    "storekeeper_postgresql.settings": lambda word: _server_of(settings={word: "1"}),
    "storekeeper_postgresql.roles": lambda word: _server_of(roles={"a": {}, word: {}}),
    "storekeeper_postgresql.roles.a.member_of": lambda word: _server_of(roles={"a": {"member_of": [word]}}),
    "storekeeper_postgresql.roles.a.valid_until": lambda word: _server_of(roles={"a": {"valid_until": word}}),
    "storekeeper_postgresql.roles.a.settings": lambda word: _server_of(roles={"a": {"settings": {word: "1"}}}),
    "storekeeper_postgresql.roles.a.password.env": lambda word: _server_of(roles={"a": {"password": {"env": word}}}),
    "storekeeper_postgresql.roles.a.password.file|the password of a": lambda word: _server_of(
        roles={"a": {"password": {"file": f"/srv/{word}"}}}
    ),
    "storekeeper_postgresql.databases": lambda word: _server_of(databases={word: {"owner": "a"}}),
    "storekeeper_postgresql.databases.a.owner": lambda word: _server_of(databases={"a": {"owner": word}}),
    "storekeeper_postgresql.databases.a.encoding": lambda word: _server_of(databases={"a": {"owner": "a", "encoding": word}}),
    "storekeeper_postgresql.databases.a.locale": lambda word: _server_of(databases={"a": {"owner": "a", "locale": word}}),
    "storekeeper_postgresql.databases.a.extensions": lambda word: _server_of(databases={"a": {"owner": "a", "extensions": [word]}}),
    "storekeeper_postgresql.source.uri": lambda word: _server_of(source={"uri": word, "suite": "s", "key": "/k"}),
    "storekeeper_postgresql.source.suite": lambda word: _server_of(source={"uri": "http://x/y", "suite": word, "key": "/k"}),
    "storekeeper_postgresql.source.components": lambda word: _server_of(
        source={"uri": "http://x/y", "suite": "s", "key": "/k", "components": [word]}
    ),
}
_PLAIN_ONLY: dict[str, Data] = {"storekeeper_releases": lambda word: {"storekeeper_releases": f"/srv/{word}"}}
_DATA = ("stack", "set", "within", "confirm", "stop", "from", "stage_dir", "report", "only", "nobody_uses", "storekeeper_release")


def _read_all(target: Host) -> None:
    """What the deploys read of an inventory before they touch a host."""
    declared.askable(target)
    for key in set(declared.DEFAULTS) - {"storekeeper_user"}:
        declared.place(target, key)
    for key in ("storekeeper_sudo", "storekeeper_wheelhouse"):
        declared.flag(target, key)
    for each in declared.stacks(target):
        cron_lines(each.stack, Program.of(target), target.name)
    for read in (declared.logs, declared.users, declared.directories, declared.passwords, declared.put_secrets):
        read(target)


def _refusal(fake: Fake, data: dict[str, Any]) -> str | None:
    fake.host.data.override_datas.clear()
    fake.host.data.override_datas.update(data)
    try:
        _read_all(fake.host)
    except SystemExit as refusal:
        return str(refusal)
    return None


@pytest.mark.fault("H10")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_word_in_any_field_of_an_inventory_is_refused_by_the_name_of_the_field_before_a_host_is_touched(
    name: str, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    may_be_meant = name in _RUNS_IN_A_SHELL
    plain = {} if name == "an option" else _PLAIN_ONLY
    fields = [*_WORDS.items(), *plain.items(), *([] if may_be_meant else _PATHS.items())]
    wrong, taken = [], _PATHS.items() if may_be_meant else ()
    with fake_host() as fake:
        for field, data in fields:
            said = _refusal(fake, data(HOSTILE[name]))
            named = said is not None and any(each in said for each in field.split("|"))
            if said is None or not named or len(said) > 800 or not said.replace("\n", "").isprintable():
                wrong.append((field, said and said[:200]))
        not_taken = [field for field, data in taken if _refusal(fake, data(HOSTILE[name])) is not None]
    campaign.found(len(fields), f"fields of an inventory with {name}", f"{len(wrong)} not refused by their names")
    assert wrong == []
    assert not_taken == [], "a path may be called so, and the test on a server takes them there"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("H10")
@pytest.mark.parametrize("name", ["a newline", "an option", "a NUL", "10 kB"])
@pytest.mark.parametrize("key", _DATA)
def test_a_hostile_word_of_data_is_refused_by_the_name_of_its_key(key: str, name: str) -> None:
    with fake_host(**{key: HOSTILE[name]}) as fake, pytest.raises(SystemExit, match=f"--data {key}= ") as refusal:
        declared.text(fake.host, key)
    assert len(str(refusal.value)) < 300


NASTY = f"-rf; touch {MARK}; $(touch {MARK}) `touch {MARK}` 'q\" %d & *"
_TIMED = _DEMO.replace("stack: demo", "stack: timed") + "scheduler: {by: systemd}\n"


@pytest.mark.fault("H10")
def test_what_is_asked_of_a_host_takes_such_paths_for_what_they_are(tmp_path: Path) -> None:
    """As a project of its own asks it, whose paths nobody has checked before."""
    root = tmp_path / NASTY
    (root / "releases/1.0-abc").mkdir(parents=True)
    (root / "releases/1.0-abc/.complete").touch()
    (root / "current").symlink_to("releases/1.0-abc")
    (root / "python3").symlink_to("/bin/sleep")
    place = str(root)
    with subprocess.Popen([f"{place}/releases/1.0-abc/bin/python3", "30"], executable="sleep") as other:
        asked = {
            "releases": Releases().command(root=place, python=f"{place}/python3"),
            "ground": Ground().command(places=[place], python=f"{place}/python3"),
            "schedules": Schedules().command(config=place, cron_directory=place, unit_directory=place),
        }
        answers = {
            what: subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
            for what, command in asked.items()
        }
        other.terminate()
    assert list(tmp_path.iterdir()) == [root]
    found = Releases().process(answers["releases"])
    assert (found.complete, found.current, found.used) == (("1.0-abc",), "1.0-abc", frozenset({"1.0-abc"}))
    assert list(Ground().process(answers["ground"]).free) == [place]
    assert Schedules().process(answers["schedules"]).cron == ()


@pytest.mark.fault("H10")
def test_paths_and_words_that_a_shell_would_run_go_through_every_deploy_and_nothing_of_them_is_run(
    deployed: Server, campaign: Campaign
) -> None:
    base = f"/srv/{NASTY}"
    deployed.guest.run(f"mkdir -p {shlex.quote(base)}/scratch && ln -sfn /usr/bin/python3 {shlex.quote(base)}/python3")
    keys = {f"storekeeper_{key}": f"{base}/{key}" for key in ("config", "repository", "state", "scratch", "cron", "python")}
    deployed.declare(
        **{**keys, "storekeeper_python": f"{base}/python3"},
        storekeeper_stacks={"demo": _DEMO, "timed": _TIMED},
        storekeeper_secrets={"by_file": deployed.secret("by_file", CANARIES["file"].encode())},
        storekeeper_users={"app": {"home": f"{base}/home", "shell": f"{base}/sh"}},
        storekeeper_directories={f"{base}/d": {"user": "app"}},
    )
    good = [deployed.deploy(which) for which in ("provision", "site", "backup", "prove")]
    good.append(deployed.deploy("status", report=str(deployed.control / f"{NASTY}.html".replace("/", ""))))
    assert [each.code for each in good] == [0] * len(good), [each.said[-800:] for each in good if each.code]
    again = deployed.deploy("site")
    assert (again.code, again.changed) == (0, []), again.said
    assert deployed.deploy("drift").code == 0
    _let_them_begin(deployed, base)
    bad = [
        deployed.deploy("verify", stack="demo", set=NASTY[5:]),
        deployed.deploy("prune", stack="demo", confirm=NASTY[5:], plan="no"),
        deployed.deploy("jobs", stop=NASTY[5:]),
        deployed.deploy("restore", stack="demo", **{"from": NASTY[5:], "plan": "yes"}),
        deployed.deploy("restore", stack="demo", set=NASTY[5:], only=NASTY[5:], stage_dir=NASTY[5:], confirm=NASTY[5:]),
    ]
    marks = deployed.marks()
    campaign.found(len(good) + len(bad) + 2, "deploys over SSH with such words in every path and value", f"{len(marks)} run")
    assert marks == []
    assert [each.code for each in bad if each.code != 1] == [], [each.said[-400:] for each in bad if each.code != 1]


def _let_them_begin(server: Server, base: str) -> None:
    """What cron and systemd would start, started as they do it."""
    lines = server.guest.run(f"cat {shlex.quote(base)}/cron/storekeeper-demo").stdout.splitlines()
    commands = [line.split(" root ", 1)[1].replace(r"\%", "%") for line in lines if " root " in line]
    assert len(commands) == 2
    for command in commands:
        server.said("sh", "-c", command)
    server.said("systemctl", "start", "storekeeper-timed-backup.service")


@pytest.mark.control("H10")
def test_control_the_same_words_in_a_shell_of_the_server_do_what_they_say(server: Server) -> None:
    server.guest.run(f"cd /var/tmp && ls {NASTY[5:].replace(chr(39), '').replace(chr(34), '')}", check=False)
    assert server.marks() == [f"/var/tmp/{MARK}"]
    server.guest.run(f"rm /var/tmp/{MARK}")
