"""Stores whose place is the application's own setting: they are backed up and restored, and the password stays where it is."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.postgresql import PASSWORD, Server, start_server
from tests.harness.program import Program, hold_to

URL = "url: {{file: {env}, key: DATABASE_URL}}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(tcp=True) as server:
        server.run("create database app")
        server.run("create table things (id int primary key)", "app")
        server.run("insert into things select generate_series(1, 50)", "app")
        yield server


def env_of(tmp_path: Path, address: str, mode: int = 0o600) -> Path:
    path = tmp_path / "app.env"
    path.write_text(f"# of the application\nexport SECRET=x\nDATABASE_URL='{address}'\n", encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.fixture
def program(tmp_path: Path, server: Server) -> Program:
    env = env_of(tmp_path, f"postgresql+asyncpg://postgres:{PASSWORD}@127.0.0.1:{server.port}/app")
    program = Program(tmp_path / "host")
    queries = "queries: {count: {store: main, query: select count(*) from things}}\n"
    main = f"kind: postgresql, programs: {server.programs}, {URL.format(env=env)}"
    program.declare(f"stack: demo\nstores: {{main: {{{main}}}}}\n{queries}")
    return program


def test_a_server_is_found_by_the_setting_and_its_password_is_nowhere_else(program: Program) -> None:
    said = []
    for words, codes in (
        (("backup", "demo"), (0, 4)),
        (("query", "demo", "count"), (0,)),
        (("examine", "demo"), (0, 4)),
        (("status", "demo", "--live"), (0, 4)),
        (("restore", "demo", "latest", "--plan"), (0, 4)),
        (("doctor", "demo"), (0, 4)),
    ):
        for ended in (program.run(*words), program.answer(*words)):
            assert ended.code in codes, ended.err
            said.append(ended.out + ended.err)
    assert program.answer("query", "demo", "count").document["result"]["rows"] == [[50]]
    assert not any(PASSWORD in text for text in said)
    kept = [path for path in program.root.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert kept == [], "no record, set or copy holds it"


def test_a_setting_that_everybody_may_read_is_a_warning_where_it_holds_a_password(program: Program, tmp_path: Path) -> None:
    env = tmp_path / "app.env"
    before = program.answer("doctor", "demo")
    env.chmod(0o644)
    document = hold_to(
        program.answer("doctor", "demo"), 4, "warning", f"{env} holds the database's password in DATABASE_URL", f"chmod o-r {env}"
    )
    assert len(document["problems"]) == len(before.document["problems"]) + 1
    assert PASSWORD not in str(document)
    assert program.run("backup", "demo").code == 4, "it works all the same"


def test_a_password_that_changes_is_followed(program: Program, server: Server, tmp_path: Path) -> None:
    env_of(tmp_path, f"postgresql://postgres:wrong@127.0.0.1:{server.port}/app")
    ended = program.answer("query", "demo", "count")
    said = f"the password comes from DATABASE_URL of {tmp_path}/app.env"
    hold_to(ended, 1, "failed", "password authentication failed", said)
    env_of(tmp_path, f"postgresql://postgres:{PASSWORD}@127.0.0.1:{server.port}/app")
    assert program.answer("query", "demo", "count").code == 0


def test_without_the_file_nothing_is_begun(program: Program, tmp_path: Path) -> None:
    (tmp_path / "app.env").unlink()
    for words in (("backup", "demo"), ("query", "demo", "count")):
        hold_to(program.answer(*words), 2, "refused", f"main: {tmp_path}/app.env cannot be read: No such file or directory")
    assert program.answer("status", "demo", "--live").code == 3
    assert program.answer("query", "demo").code == 0, "what is declared can be listed"


def test_a_file_is_found_by_the_setting_backed_up_and_restored(tmp_path: Path) -> None:
    program = Program(tmp_path / "host")
    program.declare_small()
    env = env_of(tmp_path, "sqlite:///./main.db", 0o644)
    main = f"kind: sqlite, directory: {program.database().parent}, {URL.format(env=env)}"
    program.declare(f"stack: demo\nstores: {{main: {{{main}}}}}\n")
    assert program.run("backup", "demo").code == 0, "there is no password in it, so everybody may read it"
    taken = program.answer("list", "demo").document["result"]["sets"][0]
    assert taken["stores"]["main"]["counts"] == {"documents": 40}
    saved = program.database().read_bytes()
    program.database().unlink()
    assert program.run("restore", "demo", taken["id"], "--yes").code in (0, 4)
    assert program.rows() == 40
    assert len(program.database().read_bytes()) == len(saved)
    assert os.path.realpath(program.database()) == str(program.database())


def test_a_command_after_a_reset_cannot_make_us_show_the_settings_password(program: Program) -> None:
    path = program.config / "stacks/demo.yml"
    stack = path.read_text() + "after_reset: [{run: [sh, -c, 'cat $PGPASSFILE; exit 1', sh, '{main}']}]\n"
    path.write_text(stack)
    assert program.run("backup", "demo").code == 0
    ended = program.answer("reset", "demo", "--yes")
    hold_to(ended, 1, "failed", "ended with 1", "all stores are back as they were")
    assert ":postgres:" in ended.out, "what it said is told, so the password could have been"
    assert PASSWORD not in ended.out + ended.err
    assert program.answer("query", "demo", "count").document["result"]["rows"] == [[50]]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_a_command_makes_beside_a_file_of_the_setting_belongs_to_the_application(tmp_path: Path) -> None:
    program = Program(tmp_path / "host")
    program.declare_small()
    env = env_of(tmp_path, "sqlite:///./main.db", 0o644)
    main = f"kind: sqlite, directory: {program.database().parent}, {URL.format(env=env)}"
    after = "after_reset: [{run: [chown, root, '{main}'], user: root}]"
    program.declare(f"stack: demo\nstores: {{main: {{{main}}}}}\n{after}\n")
    owner = pwd.getpwnam("daemon")
    os.chown(program.database(), owner.pw_uid, owner.pw_gid)
    assert program.run("backup", "demo").code == 0
    assert program.run("reset", "demo", "--yes").code in (0, 4)
    assert program.rows() == 0
    assert (program.database().stat().st_uid, program.database().stat().st_gid) == (owner.pw_uid, owner.pw_gid)
