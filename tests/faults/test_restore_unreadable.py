"""A restore over data that cannot be read: refused, unless a person accepts a raw copy, which is then kept and leads back bit by bit."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, Outcome, Refused, StorekeeperError
from storekeeper.restore.journal import journals, unfinished
from storekeeper.verbs.prove import prove
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.verify import verify
from tests.harness.restoring import let_old_sides_expire
from tests.harness.stacks import Lab, digest_of_tree, in_child, make_lab, open_context
from tests.harness.unreadable import PARTS, accepting, begin, files_of, leave_log_and_break, overwrite_header

pytestmark = pytest.mark.lab(sqlites=2, services=1)


PAGE = 4096


def overwrite_middle_page(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // PAGE // 2 * PAGE)
        file.write(os.urandom(PAGE))


def break_chain_of_overflow(path: Path) -> None:
    """Damage that counting rows does not meet: the pages of one long value lead nowhere."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table if not exists long (value blob)")
        connection.execute("insert into long values (?)", (b"long" * 10_000,))
    data = bytearray(path.read_bytes())
    page = max(start for start in range(0, len(data), PAGE) if data[start + 4 : start + PAGE].count(b"long") > 900)
    data[page : page + 4] = struct.pack(">I", 1)
    path.write_bytes(data)


DAMAGES = [overwrite_header, overwrite_middle_page, break_chain_of_overflow, leave_log_and_break]


def raw_files(lab: Lab, set_id: str) -> dict[str, bytes]:
    folder = lab.context.sets.entry(set_id).path / "main"
    return {part: path.read_bytes() for path in folder.iterdir() if (part := path.name.removeprefix("raw.sqlite")) in PARTS}


def bytes_of(found: Mapping[str, tuple[bytes, int, int, int]]) -> dict[str, bytes]:
    return {part: data for part, (data, *_) in found.items()}


@pytest.mark.fault("E-9")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_live_file_that_cannot_be_read_is_refused_with_the_command_that_accepts_it(lab: Lab, damage: Callable[[Path], None]) -> None:
    entry, main = begin(lab, damage)
    before = files_of(main)
    with pytest.raises(StorekeeperError, match=r"cannot be saved first: .*(damaged|malformed)") as refused:
        restore(lab.context, RestoreRequest(set=entry.id))
    assert refused.value.store == "main"
    assert refused.value.outcome in (Outcome.REFUSED, Outcome.UNKNOWN)
    assert refused.value.next == f"storekeeper restore demo {entry.id} --accept-unreadable main"
    assert files_of(main) == before
    assert journals(lab.context.state) == []
    assert lab.services[0].is_running()


@pytest.mark.fault("E-9")
@pytest.mark.parametrize("damage", DAMAGES)
def test_accepted_its_bytes_are_kept_in_the_safety_set_and_the_set_becomes_live(lab: Lab, damage: Callable[[Path], None]) -> None:
    entry, main = begin(lab, damage)
    broken = files_of(main)
    report = restore(lab.context, accepting(entry))
    assert lab.all_hold("first"), lab.sides()
    assert files_of(main)[""][1:] == broken[""][1:], "mode and owner are those of the file before"
    assert report.ended() is Outcome.WARNING
    assert [each.store for each in report.problems if "only its files are kept as they are" in each.message] == ["main"]
    safety = lab.context.sets.entry(report.result["safety_set"])
    manifest = safety.manifest
    assert manifest is not None
    assert (safety.state, manifest.stores["main"].klass, manifest.stores["meta"].klass) == ("incomplete", "raw-copy", "locked-copy")
    assert (dict(manifest.stores["main"].counts), dict(manifest.stores["main"].digests)) == ({}, {})
    assert safety.pinned is not None
    assert lab.context.sets.resolve("latest").entry.id == entry.id
    assert raw_files(lab, safety.id) == bytes_of(broken)


def test_a_plan_says_that_it_is_unreadable_and_touches_nothing(lab: Lab) -> None:
    entry, _ = begin(lab)
    before = digest_of_tree(lab.root)
    plan = restore(lab.context, accepting(entry, plan=True)).result["plan"]
    assert digest_of_tree(lab.root) == before
    assert {name: each["now"] for name, each in plan["stores"].items()} == {"main": "unreadable", "meta": "readable", "papers": "readable"}
    assert plan["stores"]["main"]["counts_now"] is None
    assert plan["stores"]["main"]["counts_after"] == {"things": 305}


def test_the_command_of_a_refusal_accepts_all_stores_that_need_it_and_keeps_what_was_asked(lab: Lab) -> None:
    begin(lab)
    overwrite_header(lab.root / "live" / "meta.db")
    with pytest.raises(StorekeeperError) as refused:
        restore(lab.context, RestoreRequest(set="latest", only=("main",)))
    commands = {problem.next for problem in refused.value.problems()}  # type: ignore[attr-defined]
    assert commands == {"storekeeper restore demo latest --only main --accept-unreadable main --accept-unreadable meta"}


def test_what_is_accepted_and_can_be_read_is_saved_as_ever(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    safety = restore(lab.context, accepting(entry, "main", "papers")).result["safety_set"]
    assert lab.context.sets.entry(safety).state == "verified"
    with pytest.raises(Refused, match="the stack declares no store nosuch"):
        restore(lab.context, accepting(entry, "nosuch"))


@pytest.mark.fault("E-9")
def test_a_way_back_to_the_old_side_brings_every_byte_back(lab: Lab) -> None:
    entry, main = begin(lab, leave_log_and_break)
    broken, inode = files_of(main), main.stat().st_ino
    assert set(broken) == {"", "-wal"}
    restore(lab.context, accepting(entry))
    lab.write("third")  # the application goes on, with a log of its own perhaps
    restore(lab.context, RestoreRequest(back=True))
    assert files_of(main) == broken
    assert main.stat().st_ino == inode
    assert [lab.readers[name]() for name in ("meta", "papers")] == ["second", "second"]
    assert lab.services[0].is_running()


def test_when_the_old_side_is_gone_the_way_back_uses_the_raw_copy_and_nothing_else_may(lab: Lab) -> None:
    entry, main = begin(lab, leave_log_and_break)
    broken = files_of(main)
    safety = restore(lab.context, accepting(entry)).result["safety_set"]
    lab.write("third")
    assert let_old_sides_expire(lab) == 1
    assert not [path for path in (lab.root / "live").iterdir() if path.name.startswith(".")]
    with pytest.raises(Refused, match=f"set {safety} of demo is incomplete"):
        restore(lab.context, RestoreRequest(set=safety))
    report = restore(lab.context, RestoreRequest(back=True))
    assert report.result["set"] == safety
    assert files_of(main) == broken
    assert [lab.readers[name]() for name in ("meta", "papers")] == ["second", "second"]


def test_a_raw_copy_is_verified_by_its_bytes_and_proves_nothing(lab: Lab) -> None:
    entry, _ = begin(lab)
    safety = restore(lab.context, accepting(entry)).result["safety_set"]
    report = verify(lab.context, safety)
    assert report.ended() is Outcome.WARNING
    assert report.result["sets"][0]["state"] == "incomplete"
    assert prove(lab.context, safety).result["sets"][0]["stores"]["main"]["outcome"] == "unknown"
    victim = lab.context.sets.entry(safety).path / "main" / "raw.sqlite"
    victim.chmod(0o600)
    content = victim.read_bytes()
    victim.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert verify(lab.context, safety).ended() is Outcome.FAILED


@pytest.mark.parametrize("method", ["switch", "probe"])
def test_a_failure_later_brings_the_broken_files_back_as_they_were(lab: Lab, method: str) -> None:
    entry, main = begin(lab, leave_log_and_break)
    broken = files_of(main)

    def fail(*_: object) -> None:
        raise Failed("the disk of this store is on fire")

    setattr(lab.context.stores["papers"], method, fail)
    with pytest.raises(Failed, match="on fire; all stores are back as they were before"):
        restore(lab.context, accepting(entry))
    assert files_of(main) == broken
    assert unfinished(lab.context.state) is None
    assert lab.services[0].is_running()
    assert not [path for path in (lab.root / "live").iterdir() if path.name.startswith(".")]


def test_a_service_that_cannot_start_on_the_broken_file_does_not_keep_the_way_back_open(lab: Lab) -> None:
    entry, main = begin(lab)
    broken = files_of(main)
    lab.services[0].fails_to_start = 2
    with pytest.raises(Failed, match="does not start; all stores are back as they were before; service-0 does not start"):
        restore(lab.context, accepting(entry))
    assert files_of(main) == broken
    assert unfinished(lab.context.state) is None


def test_a_broken_file_that_somebody_has_open_is_not_moved_under_them(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, sqlites=1, services=0)
    entry, main = begin(lab)
    broken = files_of(main)
    with open(main, "rb"):
        pid = os.getpid()

        def refused() -> None:
            with pytest.raises(Refused, match=rf"is open in .*\(pid {pid}\)"):
                restore(open_context(lab.root, lab.context.stack), accepting(entry))

        assert in_child(refused) == 0
    assert files_of(main) == broken
    restore(lab.context, accepting(entry))
    assert lab.all_hold("first")
    lab.close()


def test_a_file_that_is_written_to_while_its_bytes_are_copied_fails_the_restore(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from storekeeper.stores.sqlite import rawfiles  # noqa: PLC0415

    entry, main = begin(lab)
    real = rawfiles._chunks

    def chunks(path: Path) -> Iterator[bytes]:
        yield from real(path)
        overwrite_header(main)

    monkeypatch.setattr(rawfiles, "_chunks", chunks)
    with pytest.raises(Refused, match="was written to while its bytes were copied"):
        restore(lab.context, accepting(entry))
    assert [each.id for each in lab.context.sets.entries()] == [entry.id]


def test_back_over_a_live_file_that_broke_since_goes_to_the_safety_set(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    safety = restore(lab.context, RestoreRequest(set=entry.id)).result["safety_set"]
    overwrite_header(lab.root / "live" / "main.db")
    with pytest.raises(StorekeeperError) as refused:
        restore(lab.context, RestoreRequest(back=True))
    assert refused.value.next == "storekeeper restore demo --back --accept-unreadable main"
    report = restore(lab.context, accepting(None))
    assert lab.all_hold("second")
    assert report.result["set"] == safety
    assert f"main cannot be read now: it goes back to safety set {safety}" in [each.message for each in report.problems]
