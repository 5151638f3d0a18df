"""The power cut of the test harness: it loses what was not fsynced, and keeps what was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storekeeper.host import durable
from tests.harness.powercut import PowerCut

pytestmark = pytest.mark.root

FILES = 50


def test_a_power_cut_keeps_what_was_fsynced_and_loses_what_was_not(tmp_path: Path) -> None:
    with PowerCut(tmp_path / "power") as power:
        for number in range(FILES):
            (power.disk / f"lost-{number}").write_bytes(b"x" * 5000)
            durable.write_file(power.disk / f"kept-{number}", b"x" * 5000)
        left = power.cut()
        kept = [path for path in left.glob("kept-*") if path.read_bytes() == b"x" * 5000]
        lost = [path for path in left.glob("lost-*") if path.read_bytes() == b"x" * 5000]
        assert len(kept) == FILES
        assert not lost, "control: what nobody has fsynced has no contents after a cut"
        assert len(list(power.disk.glob("lost-*"))) == FILES, "the disk itself goes on"


def test_each_cut_shows_its_own_moment(tmp_path: Path) -> None:
    with PowerCut(tmp_path / "power") as power:
        durable.write_file(power.disk / "first", b"1")
        assert [path.name for path in power.cut().glob("*t")] == ["first"]
        durable.write_file(power.disk / "last", b"2")
        assert sorted(path.name for path in power.cut().glob("*t")) == ["first", "last"]


def test_nothing_is_left_mounted(tmp_path: Path) -> None:
    def fail(power: PowerCut) -> None:
        with power:
            power.cut()
            raise KeyError

    with pytest.raises(KeyError):
        fail(PowerCut(tmp_path / "power"))
    mounted = Path("/proc/self/mountinfo").read_text()
    assert os.fspath(tmp_path) not in mounted
    assert not list((tmp_path / "power").glob("*.img"))
