"""What a files store refuses: listings that somebody has edited, owners it cannot set, files in use, mounts, links."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host.holders import Holder
from storekeeper.host.tree import opened, remove
from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.sets.comparison import refuse_difference
from storekeeper.stores.files import checking, foreseeing, staging
from storekeeper.stores.files.entries import Tally
from storekeeper.stores.files.rights import Rights
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.lines import read_lines, to_line
from storekeeper.stores.record import StoreRecord
from tests.harness.proving import content_of_copy
from tests.harness.trees import as_user, everything, many, snapshot, store_at
from tests.stores.walk import Journal, take

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, mounts and other users")
Entries = list[dict[str, Any]]
DIRECTORY = {"type": "directory", "mode": 0o755, "uid": 0, "gid": 0, "mtime_ns": 0}
FILE = {"type": "file", "mode": 0o644, "uid": 0, "gid": 0, "mtime_ns": 0, "size": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}


def file_at(path: str, **more: Any) -> dict[str, Any]:
    return {**FILE, "path": path, **more}


def link_at(path: str, target: str) -> dict[str, Any]:
    return {"path": path, "type": "link", "mode": 0o777, "uid": 0, "gid": 0, "mtime_ns": 0, "target": target}


HOSTILE: dict[str, Callable[[str], Entries]] = {
    "an absolute path": lambda out: [file_at(f"{out}/escaped")],
    "a path that climbs": lambda out: [file_at("../outside/escaped")],
    "a path that climbs from inside": lambda out: [{**DIRECTORY, "path": "a"}, file_at("a/../../outside/escaped")],
    "a file below a link": lambda out: [link_at("a", out), file_at("a/escaped")],
    "a link that takes a directory's place": lambda out: [{**DIRECTORY, "path": "a"}, link_at("a", out), file_at("a/escaped")],
    "a file below a file": lambda out: [file_at("a"), file_at("a/escaped")],
    "a hard link to outside": lambda out: [{"path": "a", "type": "file", "hardlink": f"{out}/precious"}],
    "a hard link to what is no file of the set": lambda out: [
        link_at("a", f"{out}/precious"),
        {"path": "b", "type": "file", "hardlink": "a"},
    ],
    "a path that comes twice": lambda out: [file_at("a"), file_at("a")],
    "a path with a NUL": lambda out: [file_at("a\0b")],
    "the empty path": lambda out: [file_at("")],
    "a path that is a dot": lambda out: [{**DIRECTORY, "path": "."}],
    "a path that is not in order": lambda out: [file_at("b"), file_at("a")],
    "an unknown type": lambda out: [{**DIRECTORY, "path": "a", "type": "door"}],
    "a size below nothing": lambda out: [file_at("a", size=-4)],
    "a mode that is none": lambda out: [{**DIRECTORY, "path": "a", "mode": 0o170777}],
    "an extended attribute that a set never keeps": lambda out: [file_at("a", xattrs={"trusted.overlay.opaque": "eQ=="})],
    "a name that is no text": lambda out: [file_at("\ud800")],
    "no path at all": lambda out: [dict(FILE)],
    "a line that is no object": lambda out: [[1]],  # type: ignore[list-item]
}


def forged(folder: Path, record: StoreRecord, entries: Entries) -> StoreRecord:
    """The set with another listing, and a manifest that vouches for it: only what the listing says can be judged."""
    (folder / "tree.jsonl").chmod(0o600)
    lines = [to_line(entry) for entry in entries]
    (folder / "tree.jsonl").write_bytes(b"".join(lines))
    tally = Tally()
    for entry in entries:
        if isinstance(entry, dict) and "path" in entry and entry["type"] != "door":
            tally.add(entry)
    content = tally.content()
    for entry in entries:
        path = entry.get("path") if isinstance(entry, dict) else None
        if path and "sha256" in entry and "\0" not in path and path.isprintable() and ".." not in path and not path.startswith("/"):
            target = folder / "content" / path
            if not any(parent.is_file() for parent in target.parents):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(b"evil")
    return replace(record, counts=content.counts, digests=content.digests)


@pytest.fixture
def taken(tmp_path: Path) -> tuple[Path, StoreRecord]:
    root = tmp_path / "live"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious")
    return take(store_at(root, tmp_path), tmp_path / "sets")


@pytest.mark.fault("E-15")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_listing_is_found_and_nothing_is_written_outside(tmp_path: Path, taken: tuple[Path, StoreRecord], case: str) -> None:
    folder, record = taken
    record = forged(folder, record, HOSTILE[case](str(tmp_path / "outside")))
    store = store_at(tmp_path / "live", tmp_path)
    before = snapshot(tmp_path / "outside")
    place = store.place("0123abcd", None)
    (tmp_path / "scratch").mkdir()
    for use in (
        lambda: store.verify(folder, record),
        lambda: content_of_copy(store, folder, record, tmp_path / "scratch"),
        lambda: store.foresee(folder, record, None),
        lambda: store.stage(folder, record, place),
    ):
        with pytest.raises(Failed):
            use()
    store.discard_stage(place)
    assert snapshot(tmp_path / "outside") == before
    assert snapshot(tmp_path / "live") == {}
    assert not [path for path in tmp_path.rglob("escaped") if "content" not in path.parts]


@pytest.mark.control("E-15")
def test_control_a_listing_that_is_trusted_escapes(
    tmp_path: Path, taken: tuple[Path, StoreRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check, and without directories that are opened one by one, a file below a link is written outside."""
    folder, record = taken
    record = forged(folder, record, HOSTILE["a file below a link"](str(tmp_path / "outside")))
    for entry in read_lines(folder / "tree.jsonl"):
        target = tmp_path / "scratch" / entry["path"]
        target.parent.mkdir(exist_ok=True)
        os.symlink(entry["target"], target) if entry["type"] == "link" else target.write_bytes(b"evil")
    assert (tmp_path / "outside" / "escaped").exists()


@pytest.mark.fault("E-15")
def test_opened_directories_alone_keep_a_trusted_listing_inside(
    tmp_path: Path, taken: tuple[Path, StoreRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second line of defence, with the first one gone."""
    folder, record = taken
    forged(folder, record, HOSTILE["a file below a link"](str(tmp_path / "outside")))
    monkeypatch.setattr(staging, "listed", lambda folder, scope: read_lines(folder / "tree.jsonl"))
    (tmp_path / "scratch").mkdir()
    with opened({"": tmp_path / "scratch"}) as tree, pytest.raises(Failed, match=r"Not a directory|Too many levels"):
        staging.make(folder, Scope(), tree, Rights.here(), lasting=False)
    assert not (tmp_path / "outside" / "escaped").exists()


@pytest.mark.fault("E-15")
def test_contents_longer_than_listed_are_not_written_out(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 3)
    store = store_at(root, tmp_path)
    folder, record = take(store, tmp_path / "sets")
    bomb = next(path for path in sorted((folder / "content").rglob("*.txt")))
    bomb.chmod(0o600)
    with open(bomb, "ab") as file:
        file.truncate(1 << 30)
    with pytest.raises(Failed, match="not in the set as they were recorded"):
        store.verify(folder, record)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(Failed, match="not what was recorded"):
        content_of_copy(store, folder, record, tmp_path / "scratch")


@pytest.mark.fault("E-15")
def test_contents_replaced_by_a_link_are_not_followed(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 3)
    store = store_at(root, tmp_path)
    folder, record = take(store, tmp_path / "sets")
    stored = next(path for path in sorted((folder / "content").rglob("*.txt")) if path.stat().st_size)
    (tmp_path / "outside").write_bytes(stored.read_bytes())
    stored.unlink()
    stored.symlink_to(tmp_path / "outside")
    with pytest.raises(Failed):
        store.verify(folder, record)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(Failed):
        content_of_copy(store, folder, record, tmp_path / "scratch")


@pytest.mark.parametrize(
    "document", ["[]", "{}", '[{"path": ""}]', '[{"path": "", "mode": -1, "uid": 0, "gid": 0, "mtime_ns": 0}]', "no json", "[1]"]
)
def test_attributes_of_the_root_that_cannot_be_trusted_fail_the_set(tmp_path: Path, taken: tuple[Path, StoreRecord], document: str) -> None:
    folder, record = taken
    (folder / checking.ABOVE).chmod(0o600)
    (folder / checking.ABOVE).write_text(document)
    with pytest.raises(Failed, match=r"above\.json"):
        store_at(tmp_path / "live", tmp_path).verify(folder, record)


@pytest.mark.parametrize(
    "details", [{}, {"include": "a", "exclude": []}, {"include": ["../x"], "exclude": []}, {"include": [1], "exclude": []}]
)
def test_a_manifest_that_does_not_say_what_is_covered_fails_the_set(
    tmp_path: Path, taken: tuple[Path, StoreRecord], details: dict[str, Any]
) -> None:
    folder, record = taken
    with pytest.raises(Failed, match="the manifest"):
        store_at(tmp_path / "live", tmp_path).verify(folder, replace(record, details=details))


@needs_root
def test_without_root_files_of_others_are_refused_unless_owners_are_left_out(tmp_path: Path) -> None:
    root = everything(tmp_path / "srv" / "live")
    folder, record = take(store_at(root, tmp_path), tmp_path / "sets")
    remove(root)
    for place in (tmp_path, tmp_path / "srv"):
        os.chown(place, 65534, 65534)
    subprocess.run(["chown", "-hR", "65534:65534", tmp_path / "sets"], check=True)
    with passable(tmp_path), as_user(65534, 65534):
        store = store_at(root, tmp_path)
        with pytest.raises(Refused, match="restore as root, or without owners") as refused:
            store.foresee(folder, record, None)
        assert refused.value.next == "--no-owners papers"
        store = store_at(root, tmp_path, no_owners=True)
        warnings = [problem.message for problem in store.foresee(folder, record, None).problems]
        assert warnings == ["files will belong to this user, without set-user-ID bits"]
        place, log = store.place("0123abcd", None), Journal()
        refuse_difference(store.stage(folder, record, place), record, "the stage")
        store.switch(place, log)
        store.probe(place, record)
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in root.rglob("*")} == {(65534, 65534)}
    assert (root / "a" / "run").stat().st_mode & 0o7777 == 0o755, "nothing runs as somebody else"
    assert (root / "a" / "x").read_text() == "a"


@needs_root
def test_a_proof_without_root_takes_only_what_it_cannot_set_as_recorded(tmp_path: Path) -> None:
    root = everything(tmp_path / "live")
    folder, record = take(store_at(root, tmp_path), tmp_path / "sets")
    subprocess.run(["chown", "-hR", "65534:65534", tmp_path / "sets"], check=True)
    (tmp_path / "scratch").mkdir()
    os.chown(tmp_path / "scratch", 65534, 65534)
    with passable(tmp_path), as_user(65534, 65534):
        store = store_at(root, tmp_path)
        refuse_difference(content_of_copy(store, folder, record, tmp_path / "scratch"), record, "the proof")
    stored = folder / "content" / "a.b" / "x"
    stored.chmod(0o600)
    stored.write_text("b")
    with passable(tmp_path), as_user(65534, 65534), pytest.raises(Failed, match="not what was recorded"):
        content_of_copy(store, folder, record, tmp_path / "scratch")


@pytest.mark.fault("E-27")
@needs_root
def test_as_root_owners_come_back_and_can_be_left_out(tmp_path: Path) -> None:
    root = everything(tmp_path / "live")
    folder, record = take(store_at(root, tmp_path), tmp_path / "sets")
    for no_owners, expected in ((True, (0, 0)), (False, (4711, 4712))):
        store = store_at(root, tmp_path, no_owners=no_owners)
        place = store.place("0123abcd", None)
        refuse_difference(store.stage(folder, record, place), record, "the stage")
        store.switch(place, Journal())
        status = (root / "a.b" / "x").stat()
        assert (status.st_uid, status.st_gid) == expected
        store.discard_old(place)


def test_a_file_that_a_process_has_open_is_refused_with_its_pid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreseeing, "family", lambda: {os.getpid()})  # the holder here is a child of ours
    root = many(tmp_path / "live", 5)
    store = store_at(root, tmp_path)
    folder, record = take(store, tmp_path / "sets")
    held = next(path for path in sorted(root.rglob("*.txt")))
    place = store.place("0123abcd", None)
    store.stage(folder, record, place)
    before = snapshot(root)
    with open(held, "rb") as file, subprocess.Popen(["sleep", "1000"], stdin=file) as holder:
        try:
            for use in (lambda: store.foresee(folder, record, None), lambda: store.switch(place, Journal())):
                with pytest.raises(Refused, match=rf"{held.name} is open in sleep \(pid {holder.pid}\)"):
                    use()
        finally:
            holder.kill()
    assert snapshot(root) == before
    store.switch(place, Journal())


@pytest.mark.parametrize("promised", [True, False])
def test_what_cannot_be_seen_counts_as_used_unless_a_person_says_that_nobody_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promised: bool
) -> None:
    def hidden(paths: object, **_: object) -> list[Holder]:
        raise Unknown("the open files of pid 1 may not be read")

    root = many(tmp_path / "live", 5)
    store = store_at(root, tmp_path, nobody_uses=promised)
    folder, record = take(store, tmp_path / "sets")
    monkeypatch.setattr(foreseeing, "holders_of", hidden)
    if promised:
        store.foresee(folder, record, None)
        return
    with pytest.raises(Refused, match="pid 1 may not be read; what cannot be seen counts as used") as refused:
        store.foresee(folder, record, None)
    assert refused.value.next == "--nobody-uses papers"


def test_very_many_entries_are_looked_at_without_being_held(tmp_path: Path) -> None:
    """Half a kilobyte of each stayed while holders were looked for, and twice that in what pathlib remembers of their names."""
    root = tmp_path / "live"
    root.mkdir()
    first = root / "first"
    first.touch()
    for number in range(5_000):
        os.link(first, root / f"paper-{number:05}.pdf")
    covered = foreseeing.Covered(root, Scope())
    foreseeing.refuse_holders(covered, nobody_uses=True, name="papers")  # what is loaded at the first time stays
    tracemalloc.start()
    foreseeing.refuse_mounts(covered)
    foreseeing.refuse_holders(covered, nobody_uses=True, name="papers")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000, peak


@needs_root
def test_a_mount_point_among_covered_entries_is_refused_and_one_at_the_root_is_not(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 40)
    folder, record = take(store_at(root, tmp_path), tmp_path / "sets")
    with mounted(root / "3"):
        (root / "3" / "x").write_text("x")
        with pytest.raises(Refused, match="live/3 is a mount point"):
            store_at(root, tmp_path).foresee(folder, record, None)
        assert "is a mount point" in store_at(root, tmp_path).preflight()[0].message
        store_at(root, tmp_path, include=["1"])
        assert store_at(root, tmp_path, include=["1"]).preflight() == []
    with mounted(tmp_path / "disk"):
        root = many(tmp_path / "disk", 40)
        store = store_at(root, tmp_path, exclude=["lost+found"])
        folder, record = take(store, tmp_path / "more")
        (root / "new").write_text("x")
        store.foresee(folder, record, None)
        place = store.place("0123abcd", None)
        assert Path(place["places"][0]["hidden"]).parent == root, "names move only within a mount"
        refuse_difference(store.stage(folder, record, place), record, "the stage")
        store.switch(place, Journal())
        assert not (root / "new").exists()
        store.discard_old(place)


@needs_root
def test_nothing_that_is_mounted_in_a_place_is_ever_removed_with_it(tmp_path: Path) -> None:
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    with mounted(tmp_path / "tree" / "inner"):
        (tmp_path / "tree" / "inner" / "precious").write_text("x")
        with pytest.raises(OSError, match="mounted"):
            remove(tmp_path / "tree")
        assert (tmp_path / "tree" / "inner" / "precious").exists()


def test_staging_elsewhere_works_on_the_same_mount_and_else_stays_beside(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 3)
    store = store_at(root, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    assert Path(store.place("0123abcd", tmp_path / "elsewhere")["places"][0]["hidden"]).parent == tmp_path / "elsewhere"
    assert Path(store.place("0123abcd", Path("/dev/shm"))["places"][0]["hidden"]).parent == tmp_path


def test_space_is_foreseen_for_every_file_s_blocks(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 300)
    store = store_at(root, tmp_path)
    folder, record = take(store, tmp_path / "sets")
    place = store.place("0123abcd", None)
    store.stage(folder, record, place)
    hidden = Path(place["places"][0]["hidden"])
    taken = sum(path.lstat().st_blocks * 512 for path in hidden.rglob("*"))
    needed = store.foresee(folder, record, None).bytes_needed
    assert list(needed) == [hidden.parent]
    assert taken <= needed[hidden.parent] + 64 * 1024 <= 4 * taken


@pytest.mark.fault("E-3")
def test_a_disk_that_is_full_while_staging_fails_and_leaves_live_data_and_no_stage(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a small file system")
    with mounted(tmp_path / "small", "size=2m"):
        root = tmp_path / "small" / "live"
        root.mkdir()
        (root / "big").write_bytes(os.urandom(1_200_000))
        store = store_at(root, tmp_path)
        folder, record = take(store, tmp_path / "sets")
        before, place = snapshot(root), store.place("0123abcd", None)
        with pytest.raises(Failed, match="big could not be made: No space left on device"):
            store.stage(folder, record, place)
        store.discard_stage(place)
        assert snapshot(root) == before
        assert [path.name for path in (tmp_path / "small").iterdir()] == ["live"]


@contextmanager
def mounted(place: Path, options: str = "size=16m") -> Iterator[None]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def passable(path: Path) -> Iterator[None]:
    """pytest's own directories may be passed through by others while the block runs."""
    closed = [(each, each.stat().st_mode & 0o7777) for each in (path, *path.parents) if not each.stat().st_mode & 0o001]
    for each, mode in closed:
        each.chmod(mode | 0o011)
    try:
        yield
    finally:
        for each, mode in closed:
            each.chmod(mode)
