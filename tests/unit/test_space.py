"""Space is summed by file system, and what is short is said with what it has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storekeeper.host import space
from storekeeper.outcomes import Refused
from tests.harness.mounts import disk, fill


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path / "small", "4m") as mounted:
        yield mounted


@pytest.mark.root
def test_two_directories_of_one_file_system_need_their_sum(small: Path) -> None:
    first, second = small / "a", small / "b" / "not yet there"
    each = 3 << 20
    space.check({first: each}, purpose="restore")
    space.check({second: each}, purpose="restore")
    with pytest.raises(Refused, match=rf"restore needs 6\.3 MB on {small}, which has 4\.2 MB") as refused:
        space.check({first: each, second: each}, purpose="restore", next="free some")
    assert refused.value.next == "free some"


@pytest.mark.root
def test_two_file_systems_are_not_added_up(small: Path, tmp_path: Path) -> None:
    found = space.check({small: 3 << 20, tmp_path: 3 << 20}, purpose="restore")
    assert [each.needed for each in found] == [3 << 20, 3 << 20]
    assert found[0].mount == small


def test_free_space_leaves_out_what_is_reserved_for_root(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    assert space.free_bytes(tmp_path) <= found.f_bfree * found.f_frsize


@pytest.mark.root
def test_reserved_blocks_can_be_written_when_the_disk_is_full_and_others_cannot(small: Path) -> None:
    kept = os.open(small / "journal", os.O_WRONLY | os.O_CREAT)
    bare = os.open(small / "bare", os.O_WRONLY | os.O_CREAT)
    space.reserve(kept, 1 << 16)
    fill(small)
    assert os.fstat(kept).st_size == 0
    assert os.pwrite(kept, bytes(1 << 16), 0) == 1 << 16
    with pytest.raises(OSError, match="No space"):
        os.pwrite(bare, bytes(1 << 16), 0)
    os.close(kept)
    os.close(bare)


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (3_100_000_000, "3.1 GB"), (999_999, "1.0 MB"), (10**19, "10000.0 PB")],
)
def test_sizes_are_said_in_decimal_units(count: int, said: str) -> None:
    assert space.spoken_size(count) == said
