"""A files store: what a tree may hold comes back as it was, and what moves meanwhile is said."""

from __future__ import annotations

import os
import resource
import socket
import stat
import tracemalloc
from pathlib import Path

import pytest

from storekeeper.host import tree as host_tree
from storekeeper.host.tree import Tree, opened, remove
from storekeeper.outcomes import Failed, Severity
from storekeeper.sets.comparison import refuse_difference
from storekeeper.stores import trees
from storekeeper.stores.files import copying, staging
from storekeeper.stores.files.hold import FilesHold
from storekeeper.stores.files.listing import Seen, shown, walk
from storekeeper.stores.files.scope import Scope, order_of
from storekeeper.stores.files.store import FilesStore
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.identities import PatternSource, Remarks
from storekeeper.stores.mending import Wanted
from storekeeper.stores.protocol import Part
from tests.harness.proving import content_of_copy
from tests.harness.trees import as_user, everything, many, snapshot, store_at
from tests.stores.walk import Journal, dump_after, entries, take, take_whole

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, devices and other users")


def restored(store: FilesStore, root: Path, folder: Path, record) -> None:
    place, log = store.place("0123abcd", None), Journal()
    refuse_difference(store.stage(folder, record, place), record, "the stage")
    store.switch(place, log)
    store.probe(place, record)
    store.discard_old(place)


@pytest.mark.fault("E-27")
def test_a_tree_of_everything_comes_back_equal_in_every_attribute(tmp_path: Path) -> None:
    root = everything(tmp_path / "live")
    before = snapshot(root)
    store = store_at(root, tmp_path)
    folder, record = take(store, tmp_path / "sets")
    store.verify(folder, record)
    remove(root)
    restored(store, root, folder, record)
    after = snapshot(root)
    assert after.keys() == before.keys()
    assert {path for path in before if after[path] != before[path]} == set()


def test_a_proof_holds_the_set_to_every_attribute_it_restores(tmp_path: Path) -> None:
    root = everything(tmp_path / "live")
    store = store_at(root, tmp_path)
    folder, record = take(store, tmp_path / "sets")
    (tmp_path / "scratch").mkdir()
    refuse_difference(content_of_copy(store, folder, record, tmp_path / "scratch"), record, "the proof")
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.control("E-27")
@pytest.mark.parametrize("lost", ["chmod", "utime", "setxattr", "chown", "link"])
def test_control_a_restore_that_forgets_one_attribute_is_found_by_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    root = everything(tmp_path / "live")
    store = store_at(root, tmp_path)
    folder, record = take(store, tmp_path / "sets")

    def copy_instead(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int, **_: object) -> None:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, dir_fd=dst_dir_fd))

    real = os.setxattr

    def only_tried(where: object, name: str, value: bytes, **_: object) -> None:
        if "storekeeper" in name:  # whether the scratch directory keeps any is found out with this one
            real(where, name, value)

    replaced = {"link": copy_instead, "setxattr": only_tried}.get(lost, lambda *_, **__: None)
    monkeypatch.setattr(os, lost, replaced)
    (tmp_path / "scratch").mkdir()
    found = content_of_copy(store, folder, record, tmp_path / "scratch")
    monkeypatch.undo()
    if lost == "chown" and os.geteuid() != 0:
        return
    with pytest.raises(Failed, match="differs from the set"):
        refuse_difference(found, record, "the proof")


def test_listings_are_sorted_by_whole_paths_as_bytes(tmp_path: Path) -> None:
    everything(tmp_path / "live")
    many(tmp_path / "live" / "many", 400)
    with opened({"": tmp_path / "live"}) as tree:
        paths = [path for path, _ in walk(tree, Scope())]
    assert paths == sorted(paths, key=order_of)
    assert paths.index("a-b") < paths.index("a/x"), "what sorting each directory by itself gets wrong"
    assert len(paths) == len(set(paths)) == sum(len(folders) + len(files) for _, folders, files in os.walk(os.fsencode(tmp_path / "live")))


def test_what_vanished_or_changed_after_the_moment_is_listed_and_said(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 60)
    (root / "goes").mkdir()
    (root / "goes" / "inner").write_text("x")
    (root / "grows").write_text("x")
    (root / "turns").write_text("x")

    def meanwhile() -> None:
        remove(root / "goes")
        (root / "grows").write_text("longer")
        (root / "turns").unlink()
        os.symlink("/etc/passwd", root / "turns")
        (root / "comes").write_text("later")

    store = store_at(root, tmp_path)
    folder, dumped = dump_after(store, tmp_path, meanwhile)
    listed = entries(folder)
    assert {path for path, entry in listed.items() if entry["type"] == "vanished"} == {"goes", "goes/inner", "turns"}
    assert listed["grows"]["changed"] is True
    assert (folder / "content" / "grows").read_text() == "longer"
    assert "comes" not in listed
    assert dumped.details["remarks"] == {"vanished": 3, "changed": 1}
    said = " ".join(problem.message for problem in dumped.problems)
    assert all(path in said for path in ("goes/inner", "turns", "grows"))
    assert {problem.severity for problem in dumped.problems} == {Severity.WARNING}
    assert dumped.counts["files"] == 61


def test_a_directory_that_comes_back_after_it_was_missed_does_not_make_a_set_that_cannot_be_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = many(tmp_path / "live", 5)
    (root / "d").mkdir()
    (root / "d" / "x").write_text("x")
    os.rename(root / "d", root / "aside")
    store = store_at(root, tmp_path, exclude=["aside"])
    original = copying.Copying._lose

    def lose(self: copying.Copying, seen: Seen) -> None:
        if os.path.exists(root / "aside"):
            os.rename(root / "aside", root / "d")  # back again before its contents are looked at
        original(self, seen)

    os.rename(root / "aside", root / "d")
    monkeypatch.setattr(copying.Copying, "_lose", lose)
    folder, _ = dump_after(store, tmp_path, lambda: os.rename(root / "d", root / "aside"))
    listed = entries(folder)
    assert listed["d"]["type"] == listed["d/x"]["type"] == "vanished"


def test_warnings_are_bounded_and_counted(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 500)
    (root / "stays").write_text("x")

    def meanwhile() -> None:
        for path in root.rglob("*.txt"):
            path.unlink()

    _, dumped = dump_after(store_at(root, tmp_path), tmp_path, meanwhile)
    assert len(dumped.problems) == 11
    assert dumped.problems[-1].message == "490 more like this: vanished"


def test_a_disk_that_goes_away_between_listing_and_copy_is_no_small_backup(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 5)
    store = store_at(root, tmp_path)

    def meanwhile() -> None:
        for path in list(root.iterdir()):
            remove(path)

    with pytest.raises(Failed, match="every file vanished"):
        dump_after(store, tmp_path, meanwhile)


@needs_root
def test_a_file_that_cannot_be_read_fails_the_store_by_name(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 5)
    for folder, folders, files in os.walk(tmp_path):
        for name in (*folders, *files, "."):
            os.chown(os.path.join(folder, name), 65534, 65534)
    (root / "0").chmod(0o700)
    secret = next(path for path in sorted(root.rglob("*.txt")))
    os.chown(secret, 0, 0)
    secret.chmod(0o600)
    with _passable(tmp_path), as_user(65534, 65534), pytest.raises(Failed, match=r"\.txt could not be copied: Permission denied"):
        take(store_at(root, tmp_path), tmp_path / "sets")


@needs_root
def test_a_directory_that_cannot_be_read_fails_the_store_and_is_never_empty(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 5)
    (root / "closed").mkdir(mode=0o700)
    (root / "closed" / "x").write_text("x")
    with _passable(tmp_path), as_user(65534, 65534), pytest.raises(Failed, match="closed cannot be read: Permission denied"):
        store_at(root, tmp_path).inspect()


def test_unchanged_files_are_shared_with_the_set_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trees.time.time_ns
    monkeypatch.setattr(trees.time, "time_ns", lambda: real() + 10**10)
    root = many(tmp_path / "live", 50)
    store = store_at(root, tmp_path)
    first, one = take(store, tmp_path / "1")
    changed = next(path for path in sorted(root.rglob("*.txt")))
    before = changed.stat()
    changed.write_bytes(b"y" * before.st_size)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    second, two = take(store, tmp_path / "2", previous=first)
    assert (one.details["linked"], two.details["linked"]) == (0, 49)
    assert (second / "content" / changed.relative_to(root)).read_bytes() == b"y" * before.st_size
    assert os.stat(second / "tree.jsonl").st_ino != os.stat(first / "tree.jsonl").st_ino


@pytest.mark.fault("E-15")
@needs_root
def test_sockets_and_devices_are_listed_and_what_a_restore_makes_of_them_is_said(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 3)
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    store = store_at(root, tmp_path)
    taken = take_whole(store, tmp_path / "sets")
    assert entries(taken.folder)["null"]["device"] == [False, 1, 3]
    assert {problem.message.split()[0] for problem in taken.problems} == {"null", "socket"}
    restored(store, root, taken.folder, taken.record)
    assert os.stat(root / "null").st_rdev == os.makedev(1, 3)
    assert not (root / "socket").exists()


def test_a_tree_deeper_than_there_are_descriptors_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "live"
    root.mkdir()
    deep = root / "/".join(["d"] * 150)
    deep.mkdir(parents=True)
    (deep / "x").write_text("deep")
    store = store_at(root, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        folder, record = take(store, tmp_path / "sets")
        store.verify(folder, record)
        restored(store, root, folder, record)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (deep / "x").read_text() == "deep"


def test_a_path_too_long_to_be_stored_fails_by_name(tmp_path: Path) -> None:
    root = tmp_path / "live"
    root.mkdir()
    with opened({"": root}) as tree:
        path = ""
        for _ in range(18):
            os.mkdir("d" * 250, dir_fd=tree.directory(path))
            path = f"{path}/{'d' * 250}".lstrip("/")
        os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=tree.directory(path)))
    with pytest.raises(Failed, match="File name too long"):
        take(store_at(root, tmp_path), tmp_path / "sets")
    assert store_at(root, tmp_path).inspect().counts["files"] == 1, "control: it is there and can be read"
    remove(root)


def test_memory_stays_flat_whatever_the_number_of_files(tmp_path: Path) -> None:
    def peak(files: int) -> int:
        root = many(tmp_path / f"live-{files}", files)
        tracemalloc.start()
        (tmp_path / f"work-{files}").mkdir()
        hold = FilesHold(root, Scope(), tmp_path / f"work-{files}")
        hold.pin()
        with StoreFolder_of(tmp_path / f"set-{files}") as writer:
            copying.Copying(hold.tree, writer).copy(hold.listing)
        hold.close()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(50)
    assert peak(2000) < peak(200) + 700_000


def test_a_directory_with_more_names_than_are_held_at_once_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tree, "_AT_ONCE", 3)
    root = tmp_path / "live"
    for folder in ("", "a", "a/b", "c"):
        (root / folder).mkdir()
        for number in range(10):
            (root / folder / f"file-{number}").touch()
    (root / "c").chmod(0o500)
    remove(root)
    assert not root.exists()


def StoreFolder_of(directory: Path):  # noqa: N802
    directory.mkdir()
    return StoreFolder(directory, None, lambda _: None).tree("tree.jsonl", "content")


def test_names_are_shown_without_what_would_move_a_terminal() -> None:
    assert shown("a\x1b[31m\nb\udcff\u202e") == "a\\x1b[31m\\nb\\xff\\u202e"


def test_a_hash_of_what_stands_on_disk_is_made_not_of_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof reads its scratch files back: bytes that rot between writing and reading are found."""
    root = many(tmp_path / "live", 5)
    store = store_at(root, tmp_path)
    folder, record = take(store, tmp_path / "sets")
    original = staging.read_back

    def rot(tree: Tree, *rest: object) -> object:
        place = tree.places[""]
        victim = next(path for path in sorted(place.rglob("*.txt")) if path.stat().st_size)
        before = victim.stat()
        data = victim.read_bytes()
        victim.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
        return original(tree, *rest)

    monkeypatch.setattr(staging, "read_back", rot)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(Failed, match="digest of tree"):
        refuse_difference(content_of_copy(store, folder, record, tmp_path / "scratch"), record, "the proof")


class _passable:  # noqa: N801 reads as a word in `with`
    """pytest's own directories may be passed through by others while the block runs."""

    def __init__(self, path: Path) -> None:
        self._closed = [each for each in (path, *path.parents) if each.stat().st_uid == 0 and not each.stat().st_mode & 0o001]

    def __enter__(self) -> None:
        self._modes = [each.stat().st_mode for each in self._closed]
        for each in self._closed:
            each.chmod(0o711)

    def __exit__(self, *_: object) -> None:
        for each, mode in zip(self._closed, self._modes, strict=True):
            each.chmod(mode & 0o7777)


def test_a_part_of_a_copy_is_what_a_document_needs_and_comes_back_whole_with_all_below_it(tmp_path: Path) -> None:
    root, source, wanted = tmp_path / "live", PatternSource("books/{id}"), [Wanted("4711")]
    for path in ("4710/other", "4711/pages/1.png", "4712/far"):
        (root / "books" / path).parent.mkdir(parents=True)
        (root / "books" / path).write_text(path)
    os.link(root / "books/4710/other", root / "books/4711/shared")
    os.chmod(root / "books/4711/pages", 0o750)
    store = store_at(root, tmp_path)
    folder, record = take(store, tmp_path / "sets")
    before = {path: entry for path, entry in snapshot(root / "books/4711").items() if path != "shared"}
    remove(root / "books/4711")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with (
        store.copy(folder, record, scratch, Part("4711", [source])) as copy,
        copy.mender(source, (), "0123abcd") as origin,
        store.mender(source, (), "0123abcd") as mender,
    ):
        assert {each.id for each in copy.identities(source, Remarks())} == {"4710", "4711"}  # a name of the first has its contents
        with origin.grip(wanted) as held, mender.grip(wanted) as grip:
            pieces = mender.brought(held.pieces("4711"), origin)
            mender.receive(pieces, origin)
            grip.exchange("4711", [], pieces)
            assert [mender.told(piece) for piece in grip.pieces("4711")] == [piece["told"] for piece in pieces]
        mender.drop()
    after = snapshot(root / "books/4711")
    assert (root / "books/4711/shared").read_text() == "4710/other"
    assert {path: entry for path, entry in after.items() if path != "shared"} == before
    assert sorted(path.name for path in root.iterdir()) == ["books"]
