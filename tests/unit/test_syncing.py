"""Files that are made durable together: each of them is, and the one that could not be is named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from storekeeper.host import syncing
from storekeeper.host.syncing import Unsynced
from storekeeper.outcomes import Failed
from storekeeper.stores.folder import StoreFolder


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that were fsynced, in their order."""
    inodes: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        inodes.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    return inodes


def put(unsynced: Unsynced, path: Path, size: int = 3) -> int:
    """Write a file, hand it over and close it; its inode."""
    with open(path, "xb", buffering=0) as file:
        file.write(b"x" * size)
        unsynced.add(file.fileno(), path.name, size)
        return os.fstat(file.fileno()).st_ino


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_every_file_is_synced_before_the_block_has_ended_and_none_before_it_is_needed(tmp_path: Path, synced: list[int]) -> None:
    before = descriptors()
    with Unsynced() as unsynced:
        put_there = [put(unsynced, tmp_path / str(number)) for number in range(20)]
        assert synced == []
    assert synced == put_there
    assert descriptors() == before


def test_a_large_tree_holds_no_more_descriptors_than_are_allowed(
    tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncing, "_MOST_FILES", 8)
    before, most = descriptors(), 0
    with Unsynced() as unsynced:
        put_there = []
        for number in range(50):
            put_there.append(put(unsynced, tmp_path / str(number)))
            most = max(most, descriptors() - before)
    assert synced == put_there
    assert most < 8


def test_many_bytes_are_not_left_waiting_for_many_files(tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing, "_MOST_BYTES", 1000)
    with Unsynced() as unsynced:
        first = put(unsynced, tmp_path / "1", 600)
        assert synced == []
        second = put(unsynced, tmp_path / "2", 600)
        assert synced == [first, second]


def test_a_block_that_fails_waits_for_no_disk_and_keeps_nothing_open(tmp_path: Path, synced: list[int]) -> None:
    before = descriptors()
    with pytest.raises(ValueError, match="torn"):
        _fail_with_one_waiting(tmp_path)
    assert synced == []
    assert descriptors() == before


def _fail_with_one_waiting(directory: Path) -> None:
    with Unsynced() as unsynced:
        put(unsynced, directory / "1")
        raise ValueError("torn")


def test_a_file_that_cannot_be_written_out_fails_the_tree_and_is_named_though_others_were_added_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [tmp_path / name for name in ("a", "b", "c")]
    for source in sources:
        source.write_bytes(source.name.encode())
    (tmp_path / "set").mkdir()
    into, before = StoreFolder(tmp_path / "set", None, lambda _: None), descriptors()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/content/b"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Failed) as failed:
        _copy_all(into, sources)
    assert failed.value.message == "b could not be written to the disk: Input/output error"
    assert into.artefacts == (), "what is not durable is nothing that a manifest may name"
    assert descriptors() == before


def _copy_all(into: StoreFolder, sources: list[Path]) -> None:
    with into.tree("tree.jsonl", "content") as writer:
        for source in sources:
            with open(source, "rb", buffering=0) as file:
                writer.add_file({"path": source.name, "type": "file"}, file)
