"""A database of a real server taken into a set and restored, without the rest of a stack."""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import Any

from storekeeper.sets.comparison import refuse_difference
from storekeeper.stores.postgresql import PostgresqlStore, build
from storekeeper.stores.protocol import Facts
from storekeeper.stores.surroundings import Surroundings
from tests.harness.postgresql import Server
from tests.harness.proving import content_of_copy
from tests.stores.walk import Journal, Taken, take_whole

_numbers = itertools.count()


def next_number() -> int:
    return next(_numbers)


def fresh(server: Server, statements: str = "", **create: str) -> str:
    name = f"db{next_number()}"
    server.run(f"create database {name} " + " ".join(f"{key} {value}" for key, value in create.items()))
    if statements:
        server.run(statements, name)
    return name


def opened(server: Server, database: str, around: Surroundings, **declared: Any) -> PostgresqlStore:
    return build("main", server.declared(database, **declared), around)


def taken_of(store: PostgresqlStore, around: Surroundings) -> Taken:
    return take_whole(store, around.private.parent / "sets" / str(next_number()))


def place_of(store: PostgresqlStore) -> Facts:
    return store.place(f"{next_number():08x}", None)


def restored(store: PostgresqlStore, taken: Taken) -> None:
    """The whole way, each step of it compared with the set."""
    place, log = place_of(store), Journal()
    store.foresee(taken.folder, taken.record, None)
    refuse_difference(store.stage(taken.folder, taken.record, place), taken.record, "the stage")
    store.switch(place, log)
    store.probe(place, taken.record)
    store.discard_old(place)


def databases(server: Server) -> set[str]:
    with server.connect() as connection:
        return {name for (name,) in connection.execute("select datname from pg_database")}


def load_by_hand(server: Server, taken: Taken, *more: str) -> tuple[str, subprocess.CompletedProcess[bytes]]:
    """What a person would do without Storekeeper: pg_restore of the archive into a new database."""
    database = fresh(server)
    data = plain_archive(taken)
    words = [server.programs / "pg_restore", "-h", server.socket, "-p", str(server.port), "-U", "postgres", "-d", database, *more]
    environment = {"PATH": os.environ["PATH"], "PGOPTIONS": "-c client_min_messages=error"}
    return database, subprocess.run(words, input=data, capture_output=True, check=False, env=environment)


def plain_archive(taken: Taken) -> bytes:
    """The set's archive as pg_dump made it."""
    [archive] = taken.folder.glob("database.dump*")
    if archive.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", archive], check=True, capture_output=True).stdout
    return archive.read_bytes()


def proven(store: PostgresqlStore, taken: Taken, around: Surroundings) -> None:
    """Restored into a scratch server and compared. What goes wrong is raised."""
    scratch = around.scratch / f"prove{next_number()}"
    scratch.mkdir(mode=0o700)
    refuse_difference(content_of_copy(store, taken.folder, taken.record, scratch), taken.record, "the proof")
    scratch.rmdir()
