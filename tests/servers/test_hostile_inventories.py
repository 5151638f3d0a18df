"""Hostile words in an inventory, in data and in paths, on their way to a server: refused by name or taken, never run."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import Host

from operations import declared
from operations.facts.ground import Ground
from operations.facts.release import Releases
from operations.facts.schedule import Schedules
from operations.program import Program
from operations.schedule import cron_lines
from tests.deploys.fake import Fake, fake_host
from tests.faults.test_hostile_names import HOSTILE, MARK
from tests.harness.campaign import Campaign
from tests.harness.guest import booted
from tests.harness.program import CHECKOUT
from tests.harness.target import Target

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

_DEMO = "stack: demo\nstores:\n  papers: {kind: files, path: /srv/demo/papers}\nschedule: {backup: '0 3 * * *'}\n"
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


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with booted("bookworm-py", name="hostile", number=75) as guest:
        guest.run("mkdir -p /srv/demo/papers && echo a >/srv/demo/papers/a.txt")
        yield Target(guest, tmp_path_factory.mktemp("control"))


def _marks(target: Target) -> list[str]:
    """Where a hostile word was run, on either side."""
    there = target.guest.run(f"find / -xdev -name {MARK}; find /tmp /run -name {MARK}").stdout.split("\n")
    here = [path for place in (CHECKOUT, target.control, Path.cwd(), Path.home()) for path in place.glob(MARK)]
    return [*filter(None, there), *map(str, here)]


@pytest.mark.fault("H10")
def test_paths_and_words_that_a_shell_would_run_go_through_every_deploy_and_nothing_of_them_is_run(
    target: Target, campaign: Campaign
) -> None:
    base = f"/srv/{NASTY}"
    target.guest.run(f"mkdir -p {shlex.quote(base)}/scratch && ln -sfn /usr/bin/python3 {shlex.quote(base)}/python3")
    keys = {f"storekeeper_{key}": f"{base}/{key}" for key in ("config", "repository", "state", "scratch", "cron", "python")}
    target.declare(
        **{**keys, "storekeeper_python": f"{base}/python3"},
        storekeeper_stacks={"demo": _DEMO, "timed": _TIMED},
        storekeeper_secrets={"by_file": target.secret("by_file", b"a secret")},
        storekeeper_users={"app": {"home": f"{base}/home", "shell": f"{base}/sh"}},
        storekeeper_directories={f"{base}/d": {"user": "app"}},
    )
    good = [target.deploy(which) for which in ("provision", "site", "backup", "prove")]
    good.append(target.deploy("status", report=str(target.control / f"{NASTY}.html".replace("/", ""))))
    assert [each.code for each in good] == [0] * len(good), [each.said[-800:] for each in good if each.code]
    again = target.deploy("site")
    assert (again.code, again.changed) == (0, []), again.said
    assert target.deploy("drift").code == 0
    _let_them_begin(target, base)
    bad = [
        target.deploy("verify", stack="demo", set=NASTY[5:]),
        target.deploy("prune", stack="demo", confirm=NASTY[5:], plan="no"),
        target.deploy("jobs", stop=NASTY[5:]),
        target.deploy("restore", stack="demo", **{"from": NASTY[5:], "plan": "yes"}),
        target.deploy("restore", stack="demo", set=NASTY[5:], only=NASTY[5:], stage_dir=NASTY[5:], confirm=NASTY[5:]),
    ]
    marks = _marks(target)
    campaign.found(len(good) + len(bad) + 2, "deploys over SSH with such words in every path and value", f"{len(marks)} run")
    assert marks == []
    assert [each.code for each in bad if each.code != 1] == [], [each.said[-400:] for each in bad if each.code != 1]


def _let_them_begin(target: Target, base: str) -> None:
    """What cron and systemd would start, started as they do it."""
    lines = target.guest.run(f"cat {shlex.quote(base)}/cron/storekeeper-demo").stdout.splitlines()
    commands = [line.split(" root ", 1)[1].replace(r"\%", "%") for line in lines if " root " in line]
    assert len(commands) == 2
    for command in commands:
        target.said("sh", "-c", command)
    target.said("systemctl", "start", "storekeeper-timed-backup.service")


@pytest.mark.control("H10")
def test_control_the_same_words_in_a_shell_of_the_server_do_what_they_say(target: Target) -> None:
    target.guest.run(f"cd /var/tmp && ls {NASTY[5:].replace(chr(39), '').replace(chr(34), '')}", check=False)
    assert _marks(target) == [f"/var/tmp/{MARK}"]
    target.guest.run(f"rm /var/tmp/{MARK}")
