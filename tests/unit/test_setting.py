"""A store's place by the application's own setting: how the file is read, which addresses are taken, and that no password gets out."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from storekeeper.outcomes import Refused
from storekeeper.stack.loader import StackFileErrors, check_text
from storekeeper.stack.model import PostgresqlModel, SqliteModel
from storekeeper.stack.resolving import resolved, resolved_stack
from storekeeper.stack.secrets import read_secret
from storekeeper.stack.types import Setting

CANARY = "canary-hunter2"


def setting(tmp_path: Path, text: str) -> Setting:
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    return Setting(file=tmp_path / ".env", key="DATABASE_URL")


def sqlite(tmp_path: Path, text: str, directory: Path | None = None) -> Path | None:
    return resolved(SqliteModel(kind="sqlite", url=setting(tmp_path, text), directory=directory), "main").path


def server(tmp_path: Path, address: str) -> PostgresqlModel:
    return resolved(PostgresqlModel(kind="postgresql", url=setting(tmp_path, f"DATABASE_URL={address}")), "main")


@pytest.mark.parametrize(
    "text",
    [
        "DATABASE_URL=sqlite:////srv/app.db",
        "# DATABASE_URL=sqlite:////old.db\n\n  export DATABASE_URL = sqlite:////srv/app.db   # the place",
        "DATABASE_URL='sqlite:////srv/app.db' # x",
        'OTHER="a\nDATABASE_URL="sqlite:////srv/app.db"\r\n',
        "DATABASE_URL=sqlite:////old.db\nDATABASE_URL=sqlite:////srv/app.db\nMY_DATABASE_URL=sqlite:////other.db",
        "DATABASE_URL=sqlite+aiosqlite:////srv/app.db?timeout=5",
    ],
    ids=["plain", "export and comments", "quotes", "double quotes", "the last counts", "a driver and words"],
)
def test_the_file_is_read_as_the_application_reads_it(tmp_path: Path, text: str) -> None:
    assert sqlite(tmp_path, text) == Path("/srv/app.db")


@pytest.mark.parametrize("address", ["sqlite:///./data/x.db", "sqlite:///data/x.db", "sqlite:///../run/data/x.db"])
def test_a_relative_file_counts_from_the_declared_directory_or_is_refused(tmp_path: Path, address: str) -> None:
    assert sqlite(tmp_path, f"DATABASE_URL={address}", tmp_path / "run") == tmp_path / "run/data/x.db"
    with pytest.raises(Refused, match="declare it as `directory:`"):
        sqlite(tmp_path, f"DATABASE_URL={address}")


def test_an_address_of_a_server_gives_all_its_parts(tmp_path: Path) -> None:
    found = server(tmp_path, f"postgresql+asyncpg://app:{CANARY}%40%2F@db.example:6543/shop?ssl=require")
    assert (found.user, found.host, found.port, found.database) == ("app", "db.example", 6543, "shop")
    assert found.password is not None
    assert read_secret(found.password, "the password") == f"{CANARY}@/"
    assert CANARY not in repr(found) + str(found) + found.model_dump_json(warnings=False)
    assert CANARY.encode() not in pickle.dumps(found)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("postgres://app@/shop?host=/var/run/postgresql&port=5433", "/var/run/postgresql", 5433),
        ("postgresql://app@localhost/shop", "localhost", 5432),
        ("postgresql+psycopg://app@127.0.0.1:5444/shop", "127.0.0.1", 5444),
    ],
)
def test_sockets_defaults_and_drivers(tmp_path: Path, address: str, host: str, port: int) -> None:
    found = server(tmp_path, address)
    assert (found.host, found.port, found.password) == (host, port, None)


WRONG = {
    "mysql://app:PASS@h/shop": "is an address of mysql, and the store is declared as postgresql",
    "sqlite:////srv/x.db": "is an address of sqlite",
    "postgresql://app:PASS@h": "names no database",
    "postgresql://:PASS@h/shop": "names no user",
    "postgresql://app:PASS@h:99999/shop": "has a port that is not taken here",
    "postgresql://app:PASS@h:PASS/shop": "has a port that is not taken here",
    "postgresql://app:PASS@h/sh op": "has a database that is not taken here",
    "postgresql://app:PASS@a,b;c/shop": "has a host that is not taken here",
    "app:PASS": "is no address such as",
    "postgresql://app:${PASS}@h/shop": "it refers to another variable",
    "'postgresql://app:PASS@h/shop": "its quotes do not end",
    "": "is no address",
}


@pytest.mark.fault("H10")
@pytest.mark.parametrize("address", WRONG)
def test_what_is_no_such_address_is_refused_with_file_and_key_and_never_the_value(tmp_path: Path, address: str) -> None:
    with pytest.raises(Refused) as error:
        server(tmp_path, address.replace("PASS", CANARY))
    assert WRONG[address] in error.value.message
    assert f"main: DATABASE_URL of {tmp_path}/.env" in error.value.message
    chain = [error.value, error.value.__cause__, error.value.__context__]
    assert all(CANARY not in f"{each!r} {vars(each) if each else ''}" for each in chain)


def test_a_file_that_cannot_be_used_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"\.env has no DATABASE_URL"):
        sqlite(tmp_path, "OTHER=1\n")
    for made, said in (
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.mkdir(), "is no regular file"),
        (lambda path: (path.rmdir(), path.write_bytes(b"DATABASE_URL=\xff")), "is no text"),
        (lambda path: path.write_bytes(b"x" * 2_000_000), "is no text of at most"),
    ):
        made(tmp_path / ".env")
        with pytest.raises(Refused, match=said):
            resolved(SqliteModel(kind="sqlite", url=Setting(file=tmp_path / ".env", key="DATABASE_URL")), "main")


def test_a_password_that_is_gone_meanwhile_is_no_empty_one(tmp_path: Path) -> None:
    found = server(tmp_path, f"postgresql://app:{CANARY}@h/shop")
    setting(tmp_path, "DATABASE_URL=postgresql://app@h/shop")
    assert found.password is not None
    with pytest.raises(Refused, match="has no password any more"):
        read_secret(found.password, "the password")


FILE = """stack: demo
stores:
  main: {{{main}}}
"""
URL = "url: {file: /srv/.env, key: DATABASE_URL}"


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (f"kind: sqlite, path: /srv/x.db, {URL}", "`url` says where the store is: `path` cannot stand beside it"),
        (f"kind: postgresql, database: shop, {URL}", "`database` cannot stand beside it"),
        (f"kind: postgresql, port: 5432, {URL}", "`port` cannot stand beside it"),
        (f"kind: postgresql, password: {{file: /x}}, {URL}", "`password` cannot stand beside it"),
        ("kind: sqlite", 'missing key "path"'),
        ("kind: postgresql, user: shop", 'missing key "database"'),
        ("kind: postgresql, database: shop", 'missing key "user"'),
        ("kind: sqlite, path: /srv/x.db, directory: /srv", "`directory` stands beside `url` only"),
        ("kind: sqlite, url: {file: .env, key: DATABASE_URL}", "expected an absolute path"),
        ("kind: sqlite, url: {file: /srv/.env}", 'missing key "key"'),
        ("kind: sqlite, url: sqlite:////srv/x.db", "expected"),
    ],
)
def test_a_place_is_declared_in_one_way(main: str, said: str) -> None:
    with pytest.raises(StackFileErrors) as error:
        check_text(FILE.format(main=main), "demo.yml")
    assert said in str(error.value)


def test_the_control_side_needs_no_file() -> None:
    stack = check_text(FILE.format(main=f"kind: postgresql, {URL}"), "demo.yml")
    assert stack.stores["main"].kind == "postgresql"


def test_two_stores_that_turn_out_to_be_one_are_refused(tmp_path: Path) -> None:
    setting(tmp_path, "DATABASE_URL=sqlite:////srv/x.db")
    url = f"url: {{file: {tmp_path}/.env, key: DATABASE_URL}}"
    text = FILE.format(main=f"kind: sqlite, {url}") + "  other: {kind: sqlite, path: /srv/x.db}\n"
    with pytest.raises(Refused, match=r"/srv/x\.db overlaps /srv/x\.db of stores\.main"):
        resolved_stack(check_text(text, "demo.yml"))
