"""The folder of a set: a file is shared with the set before only where its source cannot have changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from storekeeper.host.hashing import Sum
from storekeeper.host.tree import remove
from storekeeper.stores import trees
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.lines import read_lines
from storekeeper.stores.trees import source_of

MIB = 1 << 20


def put(directory: Path, sources: list[Path], previous: Path | None = None) -> list[dict]:
    directory.mkdir()
    into = StoreFolder(directory, previous, lambda _: None)
    with into.tree("tree.jsonl", "content") as writer:
        for source in sorted(sources):
            with open(source, "rb", buffering=0) as file:
                writer.add_file({"path": source.name, "type": "file"}, file)
    return list(read_lines(directory / "tree.jsonl"))


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files had been written some time ago: a ctime cannot be set back."""
    real = trees.time.time_ns
    monkeypatch.setattr(trees.time, "time_ns", lambda: real() + 10**10)


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_an_unchanged_file_is_stored_once_for_both_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    source = tmp_path / "a"
    source.write_bytes(b"one")
    first = put(tmp_path / "1", [source])
    second = put(tmp_path / "2", [source], tmp_path / "1")
    assert inode(tmp_path / "1/content/a") == inode(tmp_path / "2/content/a")
    assert first == second


def test_equal_size_and_time_of_another_content_is_copied_because_ctime_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    source = tmp_path / "a"
    source.write_bytes(b"one")
    put(tmp_path / "1", [source])
    before = source.stat()
    source.write_bytes(b"two")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = source.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    put(tmp_path / "2", [source], tmp_path / "1")
    assert (tmp_path / "2/content/a").read_bytes() == b"two"


def test_control_without_ctime_the_old_contents_would_be_taken_for_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    monkeypatch.setattr(trees, "source_of", lambda status: {**source_of(status), "ctime_ns": 0})
    source = tmp_path / "a"
    source.write_bytes(b"one")
    put(tmp_path / "1", [source])
    before = source.stat()
    source.write_bytes(b"two")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    put(tmp_path / "2", [source], tmp_path / "1")
    assert (tmp_path / "2/content/a").read_bytes() == b"one", "the damage that the rule prevents"


def test_a_file_replaced_by_another_of_the_same_size_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    source, other = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"one")
    put(tmp_path / "1", [source])
    other.write_bytes(b"two")
    os.utime(other, ns=(0, source.stat().st_mtime_ns))
    other.rename(source)
    put(tmp_path / "2", [source], tmp_path / "1")
    assert (tmp_path / "2/content/a").read_bytes() == b"two"


def test_a_file_written_to_just_now_is_never_shared_for_its_time_may_not_change_with_the_next_write(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"one")
    (entry,) = put(tmp_path / "1", [source])
    assert "source" not in entry
    put(tmp_path / "2", [source], tmp_path / "1")
    assert inode(tmp_path / "1/content/a") != inode(tmp_path / "2/content/a")


def test_a_file_that_is_written_to_while_it_is_read_says_so_and_is_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    source = tmp_path / "a"
    source.write_bytes(b"x" * (3 * MIB))

    class Grows:
        """A file that somebody appends to after its first chunk was read."""

        def __init__(self, file) -> None:
            self.file, self.fileno = file, file.fileno

        def read(self, count: int) -> bytes:
            with open(source, "ab") as more:
                more.write(b"y")
            return self.file.read(count)

    (tmp_path / "1").mkdir()
    with StoreFolder(tmp_path / "1", None, lambda _: None).tree("tree.jsonl", "content") as writer, open(source, "rb", buffering=0) as file:
        entry = writer.add_file({"path": "a"}, Grows(file))
    assert entry["size"] == 3 * MIB, "it ends where the file ended when it was opened, however fast it grows"
    assert entry["changed"] is True
    assert "source" not in entry
    stored = (tmp_path / "1/content/a").read_bytes()
    assert (entry["size"], entry["sha256"]) == (len(stored), hashlib.sha256(stored).hexdigest()), "what was stored is what is said"


def test_files_in_a_damaged_or_missing_set_before_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    source = tmp_path / "a"
    source.write_bytes(b"one")
    put(tmp_path / "1", [source])
    (tmp_path / "1/content/a").unlink()
    put(tmp_path / "2", [source], tmp_path / "1")
    assert (tmp_path / "2/content/a").read_bytes() == b"one"


def test_a_hole_stays_a_hole_and_the_sum_is_that_of_the_zeros(tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with open(source, "wb") as file:
        file.write(b"head")
        file.truncate(200 * MIB)
    (entry,) = put(tmp_path / "1", [source])
    stored = tmp_path / "1/content/sparse"
    assert entry["size"] == stored.stat().st_size == 200 * MIB
    assert stored.stat().st_blocks * 512 < 4 * MIB
    assert entry["sha256"] == hashlib.sha256(b"head" + bytes(200 * MIB - 4)).hexdigest()


def test_a_path_deeper_than_the_interpreter_recurses_is_stored(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    source = tmp_path / "a"
    source.write_bytes(b"deep")
    path = "/".join(["d"] * 1200 + ["a"])
    with StoreFolder(tmp_path / "1", None, lambda _: None).tree("tree.jsonl", "content") as writer, open(source, "rb", buffering=0) as file:
        writer.add_file({"path": path}, file)
    assert (tmp_path / "1/content" / path).read_bytes() == b"deep"
    remove(tmp_path / "1")


def test_stored_files_are_sealed_against_everybody_but_their_owner(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"one")
    source.chmod(0o777)
    put(tmp_path / "1", [source])
    assert (tmp_path / "1/content/a").stat().st_mode & 0o7777 == 0o400
    assert (tmp_path / "1/tree.jsonl").stat().st_mode & 0o7777 == 0o400


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
def test_an_artefact_is_one_word(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="one word"):
        StoreFolder(tmp_path, None, lambda _: None).write(name, [b""])


def put_copied(directory: Path, files: dict[str, bytes], previous: Path | None = None, known: Sum | None = None) -> list[dict]:
    """A tree of private copies, in folders of their own, moved in. Each file's source is said to be `{"inode": its first byte}`."""
    (directory / "copies").mkdir(parents=True)
    into = StoreFolder(directory, previous, lambda _: None)
    with into.tree("tree.jsonl", "content") as writer:
        for number, (path, data) in enumerate(sorted(files.items())):
            copy = directory / "copies" / str(number)
            copy.write_bytes(data)
            writer.add({"path": str(Path(path).parent), "type": "directory"})
            writer.add_copied({"path": path, "type": "file"}, copy, {"inode": data[0]} if data else None, known)
    assert list((directory / "copies").iterdir()) == [], "they were moved, or removed"
    into.seal()
    assert into.bytes == sum(map(len, files.values())) + (directory / "tree.jsonl").stat().st_size
    return list(read_lines(directory / "tree.jsonl"))


COPIED = {"a/x": b"one" * MIB, "b/x": b"2", "c/x": b"", "d/x": b"four" * 1000}


def test_private_copies_are_moved_in_hashed_sealed_and_listed_in_their_turn(tmp_path: Path) -> None:
    listed = put_copied(tmp_path / "1", COPIED)
    assert [entry["path"] for entry in listed] == ["a", "a/x", "b", "b/x", "c", "c/x", "d", "d/x"]
    for entry in listed[1::2]:
        stored = tmp_path / "1/content" / entry["path"]
        data = COPIED[entry["path"]]
        assert stored.read_bytes() == data
        assert (entry["size"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert entry.get("source") == ({"inode": data[0]} if data else None)
        assert stored.stat().st_mode & 0o7777 == 0o400


def test_a_private_copy_of_an_unchanged_source_gives_way_to_a_link(tmp_path: Path) -> None:
    first = put_copied(tmp_path / "1", COPIED)
    second = put_copied(tmp_path / "2", {**COPIED, "b/x": b"3", "c/x": b""}, tmp_path / "1")
    same = {path: inode(tmp_path / "1/content" / path) == inode(tmp_path / "2/content" / path) for path in COPIED}
    assert same == {"a/x": True, "b/x": False, "c/x": False, "d/x": True}, "b has another source, and that of c could not be told"
    assert [entry for entry in first if entry["path"] != "b/x"] == [entry for entry in second if entry["path"] != "b/x"]


def test_a_sum_that_is_known_is_listed_as_it_was_told(tmp_path: Path) -> None:
    """So it must be that of the copy as it is now: reading the set back is what would find another."""
    listed = put_copied(tmp_path / "1", {"a/x": b"one"}, known=("0" * 64, 3))
    assert listed[1]["sha256"] == "0" * 64


def test_a_private_copy_that_does_not_reach_the_disk_fails_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(trees, "seal_open", broken)
    with pytest.raises(OSError, match="Input/output"):
        put_copied(tmp_path / "1", COPIED)
