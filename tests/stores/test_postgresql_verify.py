"""Verifying and proving a PostgreSQL archive: what does not decode, what is not all there, what cannot be tried here."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, StorekeeperError, Unknown
from storekeeper.sets.comparison import refuse_difference
from storekeeper.stores.postgresql import PostgresqlStore, archive, build, scratch
from storekeeper.stores.postgresql.archive import Compression
from storekeeper.stores.surroundings import Surroundings
from tests.harness.postgresql import Server, programs_of, start_server
from tests.harness.proving import content_of_copy
from tests.stores.walk import Taken, take_whole

ROWS = "create table t as select i, md5(i::text) as body from generate_series(1, 5000) i; create table u (id int); insert into u values (1)"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(major=18) as running:
        running.run("create database app")
        running.run(ROWS, "app")
        running.run("create database other")
        running.run(ROWS.replace("md5(i::text)", "md5((i + 1)::text)"), "other")
        yield running


@pytest.fixture(scope="module")
def store(server: Server, around: Surroundings) -> PostgresqlStore:
    return build("main", server.declared("app"), around)


@pytest.fixture(params=["zstd", "gzip"])
def taken(request: pytest.FixtureRequest, store: PostgresqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Taken:
    if request.param == "gzip":
        use_gzip(monkeypatch)
    found = take_whole(store, tmp_path / "sets")
    assert found.record.details["compression"] == request.param
    return found


def use_gzip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storekeeper.stores.postgresql.dump.best_compression", lambda _: Compression("--compress=1", None, "gzip"))


def archive_of(taken: Taken) -> Path:
    [path] = taken.folder.glob("database.dump*")
    path.chmod(0o600)
    return path


@pytest.mark.fault("B1", "B2")
def test_every_archive_with_a_flipped_bit_or_cut_short_is_told_from_a_good_one(taken: Taken, store: PostgresqlStore) -> None:
    """Decoding alone, as if no sha256 had been kept; gzip's own checks leave a few flips of the header to the sha256."""
    path = archive_of(taken)
    good, dice = path.read_bytes(), random.Random(20)
    store.verify(taken.folder, taken.record)
    found = 0
    for _ in range(20):
        bad = bytearray(good)
        bad[dice.randrange(len(bad) // 10, len(bad))] ^= 1 << dice.randrange(8)
        path.write_bytes(bad)
        found += fails(store, taken)
    assert found >= 19
    for _ in range(10):
        path.write_bytes(good[: dice.randrange(len(good) - 1)])
        assert fails(store, taken)


def fails(store: PostgresqlStore, taken: Taken) -> bool:
    try:
        store.verify(taken.folder, taken.record)
    except Failed:
        return True
    return False


@pytest.mark.control("A16", "B2")
def test_control_listing_a_truncated_archive_finds_nothing(store: PostgresqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_gzip(monkeypatch)
    path = archive_of(take_whole(store, tmp_path / "sets"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert subprocess.run([programs_of(18) / "pg_restore", "--list", path], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("size", [0, 20])
@pytest.mark.fault("A16")
def test_an_archive_of_0_or_20_bytes_is_no_backup(taken: Taken, store: PostgresqlStore, size: int) -> None:
    archive_of(taken).write_bytes(b"\x1f\x8b\x08" + b"\0" * 17 if size else b"")
    with pytest.raises(Failed):
        store.verify(taken.folder, taken.record)


@pytest.mark.fault("A16")
def test_a_dump_program_that_writes_nothing_and_says_it_went_well_is_found_out(
    server: Server, around: Surroundings, tmp_path: Path
) -> None:
    copy = around.scratch / "empty-handed"
    copy.mkdir()
    for program in programs_of(18).iterdir():
        (copy / program.name).symlink_to(program)
    (copy / "pg_dump").unlink()
    (copy / "pg_dump").write_text('#!/bin/sh\n[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 18.4"\nexit 0\n')
    (copy / "pg_dump").chmod(0o755)
    store = build("main", server.declared("app", programs=copy), around)
    taken = take_whole(store, tmp_path / "sets")
    with pytest.raises(Failed):
        store.verify(taken.folder, taken.record)


@pytest.mark.fault("B5")
def test_an_archive_that_decodes_but_misses_a_table_fails(taken: Taken, store: PostgresqlStore) -> None:
    record = replace(taken.record, digests={**taken.record.digests, "public.v": "sha256:" + "0" * 64})
    with pytest.raises(Failed, match="the archive holds the rows of 2 tables, the record names 3"):
        store.verify(taken.folder, record)


@pytest.mark.fault("B5")
def test_an_archive_of_another_database_is_found_by_the_proof(
    taken: Taken, server: Server, store: PostgresqlStore, around: Surroundings, tmp_path: Path
) -> None:
    other = take_whole(build("main", server.declared("other"), around), tmp_path / "other")
    path = archive_of(taken)
    swapped = archive_of(other)
    if path.suffix == swapped.suffix:
        path.write_bytes(swapped.read_bytes())
        store.verify(taken.folder, taken.record)
        scratch_place = around.scratch / f"swapped{tmp_path.name}"
        scratch_place.mkdir()
        with pytest.raises(Failed, match=r"the digest of public\.t"):
            refuse_difference(content_of_copy(store, taken.folder, taken.record, scratch_place), taken.record, "the proof")


def test_a_proof_without_the_servers_programs_is_unknown_and_names_the_package(
    taken: Taken, server: Server, around: Surroundings, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    client = tmp_path / "client"
    client.mkdir()
    for program in ("pg_dump", "pg_restore"):
        (client / program).symlink_to(programs_of(18) / program)
    store = build("main", server.declared("app", programs=client), around)
    store.verify(taken.folder, taken.record)
    with pytest.raises(Unknown, match="initdb and postgres 18") as unknown:
        content_of_copy(store, taken.folder, taken.record, tmp_path)
    assert unknown.value.next == "apt-get install postgresql-18"


@pytest.mark.fault("B10")
def test_a_proof_without_an_extension_is_unknown_and_names_it(taken: Taken, store: PostgresqlStore, around: Surroundings) -> None:
    document = taken.folder / "database.json"
    document.chmod(0o600)
    recorded = json.loads(document.read_text())
    recorded["extensions"].append({"name": "postgis", "version": "3.4.2", "schema": "public", "schema_owner": "postgres"})
    document.write_text(json.dumps(recorded))
    place = around.scratch / f"ext{taken.folder.parent.parent.name}"
    place.mkdir()
    with pytest.raises(Unknown, match=r"extension postgis 3\.4\.2, which is not installed") as unknown:
        content_of_copy(store, taken.folder, taken.record, place)
    assert unknown.value.next == "apt-get install postgresql-18-postgis"
    assert list(place.iterdir()) == []


@pytest.mark.fault("B11", "B10")
def test_an_archive_newer_than_pg_restore_is_unknown_with_both_versions(taken: Taken, server: Server, around: Surroundings) -> None:
    store = build("main", server.declared("app", programs=programs_of(16)), around)
    with pytest.raises(Unknown, match=r"written by pg_dump 18\.[0-9]+, pg_restore in .* is only 16\.[0-9]+"):
        store.verify(taken.folder, taken.record)


def test_a_scratch_path_too_long_for_a_socket_still_proves(taken: Taken, store: PostgresqlStore, around: Surroundings) -> None:
    long = around.scratch / ("x" * 100 + taken.folder.parent.parent.name[-40:])
    long.mkdir()
    refuse_difference(content_of_copy(store, taken.folder, taken.record, long), taken.record, "the proof")


def test_a_broken_record_beside_the_archive_fails_and_is_named(taken: Taken, store: PostgresqlStore) -> None:
    document = taken.folder / "database.json"
    document.chmod(0o600)
    document.write_text("[]")
    with pytest.raises(Failed, match="database"):
        store.verify(taken.folder, taken.record)


def test_without_the_zstd_program_an_archive_that_needs_it_is_unknown(
    store: PostgresqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = take_whole(store, tmp_path / "sets")
    monkeypatch.setattr(archive, "zstd_program", lambda: None)
    with pytest.raises(Unknown) as unknown:
        store.verify(taken.folder, taken.record)
    assert unknown.value.next == "apt-get install zstd"


def test_a_scratch_server_that_cannot_start_is_unknown_and_leaves_nothing(
    taken: Taken, store: PostgresqlStore, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scratch._SETTINGS, "shared_buffers", "nonsense")
    place = around.scratch / f"broken{taken.folder.parent.parent.name}"
    place.mkdir()
    with pytest.raises(StorekeeperError, match="did not start") as unknown:
        content_of_copy(store, taken.folder, taken.record, place)
    assert isinstance(unknown.value, Unknown)
    assert list(place.iterdir()) == []
