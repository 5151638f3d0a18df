"""Which entries of a tree a files store covers: included ones, less excluded ones, and never through a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storekeeper.host.tree import remove
from storekeeper.outcomes import Failed, Refused
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.lines import read_lines
from tests.harness.trees import many, store_at
from tests.stores.walk import dump_after, entries, take, take_whole


def test_the_contents_of_a_link_s_target_are_never_taken(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("canary")
    root = many(tmp_path / "live", 3)
    os.symlink(tmp_path / "outside", root / "way out")
    os.symlink(tmp_path / "outside" / "secret", root / "file out")
    folder, _ = take(store_at(root, tmp_path), tmp_path / "sets")
    assert entries(folder)["way out"]["type"] == entries(folder)["file out"]["type"] == "link"
    assert not [path for path in folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


def test_a_directory_replaced_by_a_link_after_the_listing_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("canary")
    root = many(tmp_path / "live", 3)
    (root / "d").mkdir()
    (root / "d" / "x").write_text("mine")

    def meanwhile() -> None:
        remove(root / "d")
        os.symlink(tmp_path / "outside", root / "d")

    folder, _ = dump_after(store_at(root, tmp_path), tmp_path, meanwhile)
    assert entries(folder)["d/x"]["type"] == "vanished"
    assert (root / "d" / "x").read_text() == "canary", "control: by its path the file is there"
    assert not [path for path in folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


def test_a_root_that_is_a_link_is_refused(tmp_path: Path) -> None:
    many(tmp_path / "real", 3)
    os.symlink(tmp_path / "real", tmp_path / "live")
    store = store_at(tmp_path / "live", tmp_path)
    for question in (store.preflight, store.inspect, lambda: take(store, tmp_path / "sets")):
        with pytest.raises(Refused, match="symbolic link"):
            question()


def test_a_link_above_an_included_entry_is_refused_and_not_taken_for_an_absent_entry(tmp_path: Path) -> None:
    many(tmp_path / "elsewhere" / "markdown", 3)
    (tmp_path / "live").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "live" / "processed")
    store = store_at(tmp_path / "live", tmp_path, include=["processed/markdown"])
    with pytest.raises(Refused, match="processed is a symbolic link"):
        store.preflight()
    with pytest.raises(Failed, match="processed is a link"):
        take(store, tmp_path / "sets")


def test_only_included_entries_less_excluded_ones_are_in_the_set(tmp_path: Path) -> None:
    root = tmp_path / "live"
    for inner in ("raw/1.pdf", "raw/tmp/x", "raw/deep/a.tmp", "processed/md/1.md", "processed/other/x", "a/x/1", "a-b/1", "unrelated"):
        (root / inner).parent.mkdir(parents=True, exist_ok=True)
        (root / inner).write_text(inner)
    store = store_at(root, tmp_path, include=["raw", "processed/md", "a/x", "a-b", "missing"], exclude=["raw/tmp", "**/*.tmp"])
    taken = take_whole(store, tmp_path / "sets")
    listed = [entry["path"] for entry in read_lines(taken.folder / "tree.jsonl")]
    assert listed == ["a-b", "a-b/1", "a/x", "a/x/1", "missing", "processed/md", "processed/md/1.md", "raw", "raw/1.pdf", "raw/deep"]
    assert [problem.message for problem in taken.problems] == ["missing is declared in `include` and does not exist: recorded as absent"]
    store.verify(taken.folder, taken.record)
    assert store.preflight()[0].message == "missing is declared in `include` and does not exist"


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.tmp", ["x.tmp"], ["a/x.tmp", "x.tmpl"]),
        ("**/*.tmp", ["x.tmp", "a/x.tmp", "a/b/x.tmp"], ["x.tmp/y"]),
        ("a/**", ["a/x", "a/b/c"], ["a", "b/a/x"]),
        ("a?c/[xy]", ["abc/x", "a.c/y"], ["a/c/x", "abc/z"]),
        ("[!a]*", ["b", "cc"], ["a", "b/c"]),
        ("a[", ["a["], ["a"]),
        ("caché (1)+$", ["caché (1)+$"], ["cache 1"]),
    ],
)
def test_patterns_say_what_is_excluded(pattern: str, matching: list[str], others: list[str]) -> None:
    scope = Scope(exclude=[pattern])
    assert [path for path in matching if not scope.leaves_out(path)] == []
    assert [path for path in others if scope.leaves_out(path)] == []


def test_what_a_restore_keeps_beside_live_data_is_never_in_a_set(tmp_path: Path) -> None:
    root = many(tmp_path / "live", 3)
    (root / ".storekeeper-0123abcd-papers-0").mkdir()
    (root / ".storekeeper-0123abcd-papers-0" / "x").write_text("x")
    (root / ".storekeeper").write_text("the application's own")
    folder, _ = take(store_at(root, tmp_path), tmp_path / "sets")
    assert [path for path in entries(folder) if "storekeeper" in path] == [".storekeeper"]
