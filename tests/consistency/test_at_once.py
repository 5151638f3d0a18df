"""Looks and plans that run beside each other: none is in the way of another, and none spoils what another wrote down."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from storekeeper.consistency import looks, plans
from storekeeper.host import locks
from storekeeper.host.stamps import SETTLED_S
from storekeeper.outcomes import Unknown
from tests.harness.maestro import Maestro
from tests.harness.overlap import BESIDE, ENDS, Host
from tests.harness.program import Program

BEFORE_IT_IS_REMEMBERED = r"open state/demo/looks', None"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Two stores, and a file of which the authority knows nothing."""
    found = Host(tmp_path / "host")
    found.make_ready_for("repair plan")
    return found


def plans_of(host: Host) -> list[plans.Plan]:
    state = host.program.state / "demo"
    return [plans.opened(state, name) for name in plans.all_of(state)]


def test_plans_that_are_made_at_once_are_each_whole(host: Host) -> None:
    with host.stopped("repair plan") as first:
        host.must("repair plan")
        ended = host.let_go(first)
    assert ended.code in ENDS[BESIDE], ended.err
    assert [len(list(made.entries())) for made in plans_of(host)] == [1, 1]


def test_what_a_killed_run_left_of_a_plan_is_swept_by_the_next(host: Host) -> None:
    folder = host.program.state / "demo/repairs"
    with host.stopped("repair plan"):
        (left,) = folder.iterdir()
    assert left.is_dir(), "it was killed in the middle"
    host.must("repair plan")
    assert [path.name for path in folder.iterdir()] == [made.id for made in plans_of(host)]


def test_a_look_that_is_older_than_what_is_known_does_not_replace_it(host: Host) -> None:
    """Else what was seen for the first time just now would be forgotten, and what is gone would have its age again."""
    for path in host.program.root.glob("live/papers/raw/extra_*"):
        path.unlink()
    with host.stopped("check", at=BEFORE_IT_IS_REMEMBERED) as older:
        host.make_ready_for("repair plan")
        host.must("check")
        newer = looks.newest(host.program.state / "demo", "things")
        ended = host.let_go(older)
    assert ended.code in ENDS[BESIDE], ended.err
    assert newer is not None
    assert sum(newer.counts["orphan"].values()) == 1
    assert looks.newest(host.program.state / "demo", "things") == newer
    said = (host.program.state / "demo/findings.log").read_text(encoding="utf-8")
    assert said.count(" things look ") == 1


def test_a_look_beside_another_reads_everything_and_keeps_nothing(program: Program, application: Maestro) -> None:
    def look() -> dict[str, Any]:
        found: dict[str, Any] = program.answer("check", "maestro").document["result"]["rules"]["documents"]
        return found

    time.sleep(SETTLED_S + 0.2)
    look()
    application.delete_row("doc-00004")
    time.sleep(SETTLED_S + 0.2)
    kept = program.state / "maestro/kept"
    before = {path.name: path.stat().st_mtime_ns for path in (kept / "documents").iterdir()}
    with locks.hold_directory(kept) as is_ours:
        assert is_ours
        found = look()
    assert found["unchanged"] == []
    assert {each["document"] for each in found["findings"]} == {"doc-00004"}
    assert {path.name: path.stat().st_mtime_ns for path in (kept / "documents").iterdir()} == before
    assert look()["unchanged"] != [], "the next that is alone knows what has not changed"


def test_a_turn_that_does_not_come_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_TURN", 0.1)
    with looks.turn(tmp_path), pytest.raises(Unknown, match=r"looks has been locked by another run for 0\.1 s"), looks.turn(tmp_path):
        pass
