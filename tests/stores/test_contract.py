"""What every kind of store promises, held by one suite over real data of each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed, StorekeeperError
from storekeeper.sets.comparison import refuse_difference
from storekeeper.sets.point import one_point
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.identities import Identity, Remarks, key_of, merged
from storekeeper.stores.protocol import Facts, Hold
from storekeeper.stores.record import StoreRecord
from tests.harness.proving import content_of_copy
from tests.stores.kinds import KINDS, Kind, Live, opened_kind
from tests.stores.walk import Journal, check_sums, dump, empty, take

TOKEN = "0123abcd"


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    with opened_kind(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
def live(kind: Kind, tmp_path: Path) -> Live:
    return kind.make(tmp_path)


def taken(live: Live, name: str = "set") -> tuple[Path, StoreRecord]:
    live.store.preflight()
    return take(live.store, live.room / name)


def staged(live: Live, folder: Path, record: StoreRecord) -> Facts:
    place = live.store.place(TOKEN, None)
    refuse_difference(live.store.stage(folder, record, place), record, "the stage")
    return place


def proven(live: Live, folder: Path, record: StoreRecord) -> None:
    scratch = live.room / "proof"
    scratch.mkdir(mode=0o700)
    refuse_difference(content_of_copy(live.store, folder, record, scratch), record, "the proof")
    shutil.rmtree(scratch)  # whoever made it removes it; what a proof starts, it ends


def read_back(live: Live, folder: Path, record: StoreRecord) -> None:
    check_sums(folder, record)
    live.store.verify(folder, record)


def test_a_look_inside_finds_nothing_wrong_and_changes_nothing(live: Live) -> None:
    before, work = live.content(), live.room / "work"
    work.mkdir(mode=0o700)
    found = live.store.examine(work)
    assert [flaw for flaw in found.flaws if flaw.kind != "risk"] == []
    assert found.unknown == []
    assert found.counts == live.store.inspect().counts
    assert live.content() == before
    assert list(work.iterdir()) == [], "no copy is left"


def test_a_set_is_read_back_decoded_and_proven_with_equal_counts_and_digests(live: Live) -> None:
    before = live.content()
    folder, record = taken(live)
    assert record.kind == live.store.kind
    assert record.counts
    assert record.digests
    read_back(live, folder, record)
    proven(live, folder, record)
    assert live.content() == before, "taking and proving a set changes nothing live"


def test_unchanged_data_gives_equal_digests_and_changed_data_others(live: Live) -> None:
    _, first = taken(live, "first")
    _, second = taken(live, "second")
    assert (second.counts, second.digests) == (first.counts, first.digests)
    live.change()
    _, third = taken(live, "third")
    assert third.digests != first.digests, "control: a digest that never changes proves nothing"


def ids(found: Iterator[Identity]) -> list[str]:
    return sorted(each.id for each in merged(sorted(found, key=lambda each: key_of(each.id))) if each.chunks is None or each.chunks > 0)


def test_the_ids_of_a_dump_are_those_of_its_moment_and_control_live_ones_are_not(live: Live) -> None:
    before = ids(live.store.identities(live.place, Remarks()))
    folder, work = live.room / "folder", live.room / "work"
    for each in (folder, work):
        each.mkdir(mode=0o700)
    hold, into = live.store.hold(work), StoreFolder(folder, None, lambda _: None)
    with one_point({live.store.name: hold}, Progress()):
        if live.store.kind != "files":  # whose contents are copied after the moment
            live.change()
        dump(live.store, hold, into)
        if live.store.kind == "files":
            live.change()
        assert ids(live.store.dumped_identities(hold, folder, live.place, Remarks())) == before
    assert len(before) > 10
    assert ids(live.store.identities(live.place, Remarks())) != before


def test_staging_leaves_live_data_as_it_is_and_can_be_repeated_and_discarded(live: Live) -> None:
    folder, record = taken(live)
    live.change()
    changed = live.content()
    place = staged(live, folder, record)
    assert live.content() == changed
    assert staged(live, folder, record) == place, "a place depends on nothing but its token"
    live.store.discard_stage(place)
    live.store.discard_stage(place)
    assert live.content() == changed


def test_a_switch_and_the_way_back_can_each_be_repeated_and_lose_neither_side(live: Live) -> None:
    before = live.content()
    folder, record = taken(live)
    live.change()
    changed = live.content()
    assert changed != before
    place, log = staged(live, folder, record), Journal()
    for _ in range(2):
        live.store.switch(place, log)
        assert live.content() == before
    live.store.probe(place, record)
    for _ in range(2):
        live.store.switch_back(place, log)
        assert live.content() == changed
    live.store.switch(place, log)
    assert live.content() == before, "a way back that fails in another store is undone in this one"
    live.store.switch_back(place, log)
    assert live.content() == changed
    live.store.discard_stage(place)
    live.store.discard_stage(place)
    assert live.content() == changed


def test_going_back_before_any_switch_changes_nothing(live: Live) -> None:
    folder, record = taken(live)
    live.change()
    changed = live.content()
    place = staged(live, folder, record)
    live.store.switch_back(place, Journal())
    assert live.content() == changed
    live.store.discard_stage(place)


def test_discarding_after_a_switch_keeps_what_is_live(live: Live) -> None:
    before = live.content()
    folder, record = taken(live)
    live.change()
    place = staged(live, folder, record)
    live.store.switch(place, Journal())
    for discard in (live.store.discard_stage, live.store.discard_old):
        discard(place)
        discard(place)
        assert live.content() == before


def test_a_look_tells_version_and_size_as_an_inspection_does_and_refuses_what_is_not_there(live: Live) -> None:
    look, inspection = live.store.look(), live.store.inspect()
    assert (look.version, look.bytes) == (inspection.version, inspection.bytes)
    assert look.bytes > 0
    live.remove()
    with pytest.raises(StorekeeperError):
        live.store.look()


def test_an_absent_store_is_no_empty_one_and_can_be_restored_and_be_absent_again(live: Live) -> None:
    before = live.content()
    assert not live.store.is_absent(), "control"
    folder, record = taken(live)
    live.remove()
    assert live.store.is_absent()
    with pytest.raises(StorekeeperError):
        live.store.inspect()
    assert live.store.foresee(folder, record, None).counts_now is None
    place, log = staged(live, folder, record), Journal()
    live.store.switch(place, log)
    assert live.content() == before
    live.store.probe(place, record)
    live.store.switch_back(place, log)
    assert live.store.is_absent()
    live.store.discard_stage(place)


def test_what_a_restore_would_do_is_foreseen_without_doing_it(live: Live) -> None:
    folder, record = taken(live)
    live.change()
    changed = live.content()
    foreseen = live.store.foresee(folder, record, None)
    assert foreseen.counts_after == record.counts
    assert foreseen.counts_now == live.store.inspect().counts
    assert foreseen.counts_now != record.counts
    assert sum(foreseen.bytes_needed.values()) > 0
    assert live.content() == changed


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "extended"])
def test_a_damaged_artefact_is_found(live: Live, damage: str) -> None:
    folder, record = taken(live)
    for path in [each for each in folder.rglob("*") if each.is_file()][:12]:
        copy = live.room / "damaged"
        shutil.copytree(folder, copy, symlinks=True)
        _damage(copy / path.relative_to(folder), damage)
        with pytest.raises((ValueError, Failed)):
            read_back(live, copy, record)
        shutil.rmtree(copy)
    read_back(live, folder, record)


def test_a_hold_can_be_closed_from_any_state_and_twice(live: Live) -> None:
    before = live.content()
    for steps in range(5):
        work = live.room / f"work-{steps}"
        work.mkdir(mode=0o700)
        hold = live.store.hold(work)
        try:
            _walk(hold, steps)
        finally:
            hold.close()
            hold.close()
    live.change()
    assert live.content() != before, "writers go on"


def _walk(hold: Hold, steps: int) -> None:
    for step in (hold.prepare, hold.pin, hold.copy, hold.release)[:steps]:
        step()


def _damage(path: Path, how: str) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "flipped" and data:
        data[len(data) // 2] ^= 1
    path.write_bytes(data + b"x" if how == "extended" or not data else data[:-1] if how == "truncated" else data)


def test_an_emptied_store_is_staged_switched_to_and_gone_back_from_and_holds_nothing_meanwhile(live: Live) -> None:
    before = live.content()
    full = live.store.inspect().counts
    folder, record = empty(live.store, live.room / "reset")
    assert live.content() == before, "the live store is only read"
    check_sums(folder, record)
    assert set(record.counts) == set(full)
    assert not any(record.counts.values())
    foreseen = live.store.foresee(folder, record, None)
    assert (foreseen.counts_now, foreseen.counts_after) == (full, record.counts)
    place, log = staged(live, folder, record), Journal()
    live.store.switch(place, log)
    live.store.probe(place, record)
    assert live.store.inspect().counts == record.counts
    live.store.switch_back(place, log)
    assert live.content() == before
    live.store.discard_stage(place)


def test_a_copy_of_a_set_is_a_store_that_is_read_beside_the_live_one_and_gone_afterwards(live: Live) -> None:
    folder, record = taken(live)
    live.change()
    changed = live.content()
    scratch = live.room / "copy"
    scratch.mkdir(mode=0o700)
    with live.store.copy(folder, record, scratch) as copy:
        assert copy.kind == live.store.kind
        assert copy.inspect().counts == record.counts, "the set's, not what is live by now"
        assert live.store.inspect().counts != record.counts
        refuse_difference(copy.content(), record, "the copy")
    assert list(scratch.iterdir()) == []
    assert live.content() == changed
