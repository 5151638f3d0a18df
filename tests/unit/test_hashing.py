"""Hashing beside the caller: the sums are right, errors arrive, and what is given up leaves nothing open."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from pathlib import Path

import pytest

from storekeeper.host import hashing
from storekeeper.host.hashing import Hashers


def put(path: Path, size: int) -> bytes:
    data = random.Random(size).randbytes(size)
    path.write_bytes(data)
    return data


def open_file(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def descriptors() -> set[str]:
    return {name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}


def quiet(_: int) -> None:
    """Nobody wants to know."""


def test_the_sums_are_those_of_the_files_whatever_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hashing, "_CHUNK", 1000)
    wanted = {size: hashlib.sha256(put(tmp_path / str(size), size)).hexdigest() for size in (0, 1, 999, 1000, 1001, 70_000)}
    before = descriptors()
    with Hashers() as hashers:
        started = {size: hashers.start(open_file(tmp_path / str(size))) for size in wanted}
        told: list[int] = []
        assert {size: each.result(told.append) for size, each in started.items()} == {size: (sha, size) for size, sha in wanted.items()}
    assert sum(told) == sum(wanted)
    assert descriptors() == before


def test_more_files_than_may_be_open_are_all_hashed(tmp_path: Path):
    data = put(tmp_path / "a", 10)
    with Hashers() as hashers:
        started = [hashers.start(open_file(tmp_path / "a")) for _ in range(5 * hashing._OPEN)]
        assert len(descriptors()) < 2 * hashing._OPEN
        assert {each.result(quiet) for each in started} == {(hashlib.sha256(data).hexdigest(), 10)}


def test_what_comes_after_the_sum_is_done_with_the_same_file_and_its_error_arrives(tmp_path: Path):
    put(tmp_path / "a", 10)
    seen: list[str] = []

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with Hashers() as hashers:
        hashers.start(open_file(tmp_path / "a"), lambda descriptor: seen.append(os.readlink(f"/proc/self/fd/{descriptor}"))).result(quiet)
        failing = hashers.start(open_file(tmp_path / "a"), fail)
        with pytest.raises(OSError, match="No space left"):
            failing.result(quiet)
    assert seen == [str(tmp_path / "a")]


def test_what_cannot_be_read_is_an_error_and_no_sum(tmp_path: Path):
    with Hashers() as hashers:
        started = hashers.start(open_file(tmp_path))
        with pytest.raises(IsADirectoryError):
            started.result(quiet)


def test_a_sum_that_is_known_is_not_computed_again(tmp_path: Path):
    put(tmp_path / "a", 10)
    done: list[int] = []
    with Hashers() as hashers:
        assert hashers.start(open_file(tmp_path / "a"), done.append, ("f" * 64, 10)).result(quiet) == ("f" * 64, 10)
    assert len(done) == 1


def test_what_is_given_up_ends_soon_does_nothing_more_and_leaves_nothing_open(tmp_path: Path):
    (tmp_path / "endless").touch()
    os.truncate(tmp_path / "endless", 1 << 40)  # hashing it would take ten minutes
    before, sealed = descriptors(), list[int]()
    with Hashers() as hashers:
        for _ in range(5):
            hashers.start(open_file(tmp_path / "endless"), sealed.append)
    assert descriptors() == before
    assert sealed == []
    assert threading.active_count() == 1
