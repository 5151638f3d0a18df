"""Scratch places of proofs that were killed: swept by the next proof, and nothing else with them."""

from __future__ import annotations

import os
import signal

import pytest

from storekeeper.sets.publishing import take_set
from storekeeper.sets.scratch import scratch_directory, sweep
from storekeeper.verbs.prove import prove
from tests.harness.stacks import Lab, in_child


def _left(lab: Lab) -> list[str]:
    return sorted(os.listdir(lab.context.scratch))


def _die_inside(lab: Lab) -> None:
    with scratch_directory(lab.context) as scratch:
        (scratch / "copy").write_text("of secrets")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_proof_leaves_a_scratch_place_that_the_next_one_sweeps(lab: Lab) -> None:
    take_set(lab.context, purpose="backup")
    assert in_child(lambda: _die_inside(lab)) == -signal.SIGKILL
    assert len(_left(lab)) == 1, "the kill must leave something to sweep"
    report = prove(lab.context)
    assert report.result["sets"][0]["state"] == "proven"
    assert _left(lab) == []


def test_the_scratch_place_of_a_living_proof_and_what_we_did_not_make_are_left_alone(lab: Lab) -> None:
    foreign = lab.context.scratch / "storekeeper-demo-deadbeef"
    foreign.mkdir()
    with scratch_directory(lab.context) as living:
        assert sweep(lab.context) == []
        assert living.is_dir()
    assert not living.exists()
    assert foreign.is_dir()


def test_a_proof_that_fails_leaves_no_scratch_place(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    take_set(lab.context, purpose="backup")
    (lab.root / "live/main.db").unlink()
    store = lab.context.stores["main"]

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(store, "copy", fail)
    with pytest.raises(MemoryError):
        prove(lab.context)
    assert _left(lab) == []
