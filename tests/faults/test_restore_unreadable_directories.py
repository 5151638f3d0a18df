"""A restore over a Chroma directory or a tree that cannot be read: what can be read of it is kept, and leads back."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import StorekeeperError
from storekeeper.stores.lines import read_lines
from storekeeper.verbs.restore import RestoreRequest, restore
from tests.harness.restoring import let_old_sides_expire
from tests.harness.stacks import Lab, chroma_part, in_child, make_lab, open_context
from tests.harness.unreadable import accepting

pytestmark = pytest.mark.lab(sqlites=2, services=1)


def bytes_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def vectors(tmp_path: Path, directories: Mapping[str, Path]) -> Iterator[Lab]:
    made = make_lab(tmp_path, sqlites=1, services=1, first={"vectors": chroma_part(tmp_path / "live" / "vectors", directories)})
    yield made
    made.close()


@pytest.mark.fault("E-9")
def test_a_chroma_directory_whose_database_is_cut_is_kept_raw_replaced_and_brought_back(vectors: Lab) -> None:
    entry = vectors.take("first")
    vectors.write("second")
    live = vectors.root / "live" / "vectors"
    os.truncate(live / "chroma.sqlite3", 5000)
    broken = bytes_below(live)
    with pytest.raises(StorekeeperError, match="cannot be saved first") as refused:
        restore(vectors.context, RestoreRequest(set=entry.id))
    assert refused.value.next == f"storekeeper restore demo {entry.id} --accept-unreadable vectors"
    safety = restore(vectors.context, accepting(entry, "vectors")).result["safety_set"]
    assert vectors.all_hold("first"), vectors.sides()
    assert bytes_below(vectors.context.sets.entry(safety).path / "vectors" / "directory") == broken
    restore(vectors.context, RestoreRequest(back=True))
    assert bytes_below(live) == broken
    restore(vectors.context, accepting(entry, "vectors"))
    assert let_old_sides_expire(vectors) == 2
    restore(vectors.context, RestoreRequest(back=True))
    assert bytes_below(live) == broken
    assert vectors.readers["main"]() == "second"


def test_a_look_at_a_broken_chroma_directory_leaves_nothing_of_it_open(vectors: Lab) -> None:
    """An open file would make this program one of those that use the directory, and a restore would be refused for that."""
    vectors.write("first")
    live = vectors.root / "live" / "vectors" / "chroma.sqlite3"
    os.truncate(live, 5000)
    with pytest.raises(StorekeeperError) as kept:
        vectors.context.stores["vectors"].inspect()
    assert str(live) not in [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")], kept


def drop_the_right_to_read_everything() -> None:
    """Take CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from this process (capset(2)): modes hold for root from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", 0x20080522, 0)
    data = bytearray(24)
    buffer = (ctypes.c_char * 24).from_buffer(data)
    assert libc.capget(header, buffer) == 0
    effective, permitted, inheritable, *upper = struct.unpack("6I", data)
    keep = ~0b110
    struct.pack_into("6I", data, 0, effective & keep, permitted & keep, inheritable & keep, *upper)
    if libc.capset(header, buffer) != 0:
        raise OSError(ctypes.get_errno(), "capset")


@pytest.mark.fault("E-9")
@pytest.mark.root
def test_of_a_tree_the_readable_rest_is_kept_and_the_unreadable_is_named(lab: Lab) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to take a right from itself")
    entry = lab.take("first")
    lab.write("second")
    papers = lab.root / "live" / "papers"
    (papers / "notes" / "c.md").chmod(0)
    (papers / "raw" / "deep").chmod(0)

    def work() -> None:
        drop_the_right_to_read_everything()
        context = open_context(lab.root, lab.context.stack, lab.services, scratch=lab.context.scratch)
        with pytest.raises(StorekeeperError, match="Permission denied") as refused:
            restore(context, RestoreRequest(set=entry.id))
        assert refused.value.next == f"storekeeper restore demo {entry.id} --accept-unreadable papers"
        report = restore(context, accepting(entry, "papers"))
        assert any("2 entries could not even be copied" in each.message for each in manifest_of(lab, report).problems)

    assert in_child(work) == 0
    assert lab.all_hold("first")
    safety = next(each for each in lab.context.sets.entries() if each.state == "incomplete")
    kept = {str(line["path"]) for line in read_lines(safety.path / "papers" / "tree.jsonl")}
    assert {"raw/a.pdf", "raw/only-second"} <= kept
    assert not {"notes/c.md", "raw/deep"} & kept
    restore(lab.context, RestoreRequest(back=True))
    assert (papers / "notes" / "c.md").stat().st_mode & 0o777 == 0
    assert lab.readers["papers"]() == "second", "root reads it all again, nothing was lost"


def manifest_of(lab: Lab, report: Any) -> Any:
    return lab.context.sets.entry(report.result["safety_set"]).manifest
