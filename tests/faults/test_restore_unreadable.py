"""A restore over data that cannot be read: refused, unless a person accepts a raw copy, which is then kept and leads back bit by bit."""

from __future__ import annotations

import ctypes
import os
import signal
import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Outcome, Refused, StorekeeperError
from storekeeper.restore.journal import Journal, journals, unfinished
from storekeeper.restore.kept import expire_old_sides
from storekeeper.sets.repository import SetEntry
from storekeeper.stores.lines import read_lines
from storekeeper.verbs.prove import prove
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from storekeeper.verbs.verify import verify
from tests.harness import chroma
from tests.harness.campaign import Campaign
from tests.harness.stacks import Lab, chroma_part, digest_of_tree, in_child, killing, make_lab, open_context

PAGE = 4096
PARTS = ("", "-journal", "-wal")  # not the index of the log, which SQLite makes anew whenever somebody looks


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = make_lab(tmp_path, sqlites=2, services=1)
    yield made
    made.close()


def overwrite_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(os.urandom(100))


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


def leave_log_and_break(path: Path) -> None:
    """A damaged file with a log and an index beside it."""
    kept = {}
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma wal_autocheckpoint=0")
        connection.execute("update things set word = 'in the log'")
        connection.commit()
        kept = files_of(path)
    for part, (data, *_) in kept.items():
        path.with_name(path.name + part).write_bytes(data)
    overwrite_header(path)


DAMAGES = [overwrite_header, overwrite_middle_page, break_chain_of_overflow, leave_log_and_break]


def files_of(path: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """The file and what SQLite keeps beside it: bytes, mode and owners."""
    found = {}
    for part in PARTS:
        each = path.with_name(path.name + part)
        if each.exists():
            status = each.stat()
            found[part] = (each.read_bytes(), status.st_mode, status.st_uid, status.st_gid)
    return found


def begin(lab: Lab, damage: Callable[[Path], None] = overwrite_header) -> tuple[SetEntry, Path]:
    """A set of `first`; live is `second`, of which `main` is damaged."""
    entry = lab.take("first")
    lab.write("second")
    main = lab.root / "live" / "main.db"
    main.chmod(0o640)
    damage(main)
    return entry, main


def accepting(entry: SetEntry | None, *stores: str, **more: Any) -> RestoreRequest:
    set_id = entry.id if entry is not None else None
    return RestoreRequest(set=set_id, back=entry is None, accept_unreadable=frozenset(stores or ("main",)), **more)


def raw_files(lab: Lab, set_id: str) -> dict[str, bytes]:
    folder = lab.context.sets.entry(set_id).path / "main"
    return {part: path.read_bytes() for path in folder.iterdir() if (part := path.name.removeprefix("raw.sqlite")) in PARTS}


def bytes_of(found: Mapping[str, tuple[bytes, int, int, int]]) -> dict[str, bytes]:
    return {part: data for part, (data, *_) in found.items()}


def let_old_sides_expire(lab: Lab) -> None:
    from datetime import timedelta  # noqa: PLC0415

    from storekeeper.host import clock  # noqa: PLC0415

    lab.context.sets.records.add(lab.take("third").id, "prove", "ok", clock.now())
    assert len(expire_old_sides(lab.context, clock.now() + timedelta(days=8))) == 1


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
    let_old_sides_expire(lab)
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


@pytest.mark.fault("E-1")
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the line", "after the line"])
def test_kill_9_at_any_line_of_the_journal_leaves_the_whole_of_one_side(lab: Lab, after: bool, campaign: Campaign) -> None:
    entry, main = begin(lab, leave_log_and_break)
    broken = files_of(main)
    restore(lab.context, accepting(entry))
    lines = len(journals(lab.context.state)[-1].path.read_bytes().splitlines())
    ended, mixed, tried = set(), [], range(1, lines + 1, campaign.trials(5, 1))
    for number in tried:
        restore(lab.context, RestoreRequest(back=True)) if lab.readers["meta"]() == "first" else None
        assert files_of(main) == broken, number
        assert in_child(lambda number=number: killed(lab, entry, number, after=after)) == -signal.SIGKILL  # type: ignore[misc]
        ended.add(resume(lab.context).result["ended"])
        before = files_of(main) == broken and [lab.readers[name]() for name in ("meta", "papers")] == ["second", "second"]
        mixed += [] if before or lab.all_hold("first") else [(number, lab.sides())]
        assert unfinished(lab.context.state) is None
        assert lab.services[0].is_running()
    campaign.found(
        len(tried), f"kills {'after' if after else 'before'} a line, over a file that could not be read", f"{len(mixed)} mixed states"
    )
    assert mixed == []
    assert ended == {None, "abandoned", "done"} or ended == {"abandoned", "done"}


def killed(lab: Lab, entry: SetEntry, number: int, *, after: bool) -> None:
    Journal.write = killing(number, after=after)  # type: ignore[method-assign]
    restore(lab.context, accepting(entry))


@pytest.mark.fault("E-1")
@pytest.mark.parametrize("way", ["forward", "back"])
def test_kill_9_at_any_rename_leaves_the_whole_of_one_side(lab: Lab, way: str) -> None:
    """Between two lines of the journal, up to seven names change."""
    entry, main = begin(lab, leave_log_and_break)
    broken = files_of(main)
    hit = 0
    for number in range(1, 9):
        if way == "back":
            restore(lab.context, accepting(entry))
        code = in_child(lambda number=number: killed_at_rename(lab, entry, number, way))  # type: ignore[misc]
        hit += code == -signal.SIGKILL
        how = resume(lab.context).result["ended"]
        whole_of_before = files_of(main) == broken and lab.readers["papers"]() == "second"
        assert whole_of_before or lab.all_hold("first"), (number, how, sorted(os.listdir(main.parent)))
        if not whole_of_before:
            restore(lab.context, RestoreRequest(back=True))
        assert files_of(main) == broken
    assert hit >= 4


def killed_at_rename(lab: Lab, entry: SetEntry, number: int, way: str) -> None:
    from storekeeper.host import durable  # noqa: PLC0415 only this test cuts into it

    real, left = durable.rename, number

    def rename(source: Path, destination: Path) -> None:
        nonlocal left
        if ".main." in source.name + destination.name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        real(source, destination)

    durable.rename = rename
    restore(lab.context, accepting(entry) if way == "forward" else RestoreRequest(back=True))


@pytest.mark.control("E-19")
def test_control_a_log_that_stays_beside_the_other_file_is_played_into_it_and_the_readers_above_see_that(lab: Lab) -> None:
    """Why all parts move, and why the name stands empty meanwhile."""
    entry, main = begin(lab, leave_log_and_break)
    log = files_of(main)["-wal"][0]
    restore(lab.context, accepting(entry))
    with closing(sqlite3.connect(main)) as connection:
        connection.execute("pragma journal_mode=wal")
    assert lab.readers["main"]() == "first"
    main.with_name(main.name + "-shm").unlink(missing_ok=True)
    main.with_name(main.name + "-wal").write_bytes(log)
    try:
        found = lab.readers["main"]()
    except sqlite3.DatabaseError:
        found = "damaged"
    assert found != "first"


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


# --- the other kinds


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    made = {word: tmp_path_factory.mktemp(word) for word in ("first", "second")}
    for word, path in made.items():
        chroma.execute(path, "load(collection(arguments['name'], sync=100), 300, 8)", name=f"{word}-papers")
    return made


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
    let_old_sides_expire_of(vectors)
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


def let_old_sides_expire_of(lab: Lab) -> None:
    """Without writing a third word: a Chroma directory has two."""
    from datetime import timedelta  # noqa: PLC0415

    from storekeeper.host import clock  # noqa: PLC0415
    from storekeeper.sets.publishing import take_set  # noqa: PLC0415

    lab.context.sets.records.add(take_set(lab.context, purpose="backup").id, "prove", "ok", clock.now())
    assert expire_old_sides(lab.context, clock.now() + timedelta(days=8))


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
