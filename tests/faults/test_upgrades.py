"""Documents of other versions of the program: what an older one wrote is read and used, what a newer one wrote is refused untouched.

tests/faults/formats/N holds what a program of format N left behind (tests/harness/formats.py makes it); every version reads all of them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from storekeeper.cli.main import main
from storekeeper.host import formats, jobs
from storekeeper.host.formats import NewerFormat
from storekeeper.outcomes import Refused
from storekeeper.restore import journal as journals_module
from storekeeper.restore.journal import Journal, Step, unfinished
from storekeeper.sets import manifest as manifest_module
from storekeeper.sets import records as records_module
from storekeeper.sets import repository as repository_module
from storekeeper.sets.manifest import _seal, read_manifest
from storekeeper.sets.records import Records
from storekeeper.sets.repository import Repository, StackSets
from tests.harness.formats import MAJOR, PLACE
from tests.harness.postgresql import reachable_directory, start_server
from tests.harness.program import ROWS, Ended, Program
from tests.harness.sets import START, open_sets, publish, tampered, write_source

FORMATS = Path(__file__).parent / "formats"
OLD = sorted(path.name for path in FORMATS.iterdir())
FIRST = "20250109T030007Z-000001"


def placed(root: Path, generation: str, name: str) -> Program:
    """What that program left, with the modes that git does not keep, as if it had always been in `root`."""
    program = Program(root)
    source = FORMATS / generation / name
    for part in ("sets", "state", "live"):
        if (source / part).is_dir():
            shutil.copytree(source / part, root / part)
    for path in (root / "state", root / "live"):
        for file in (each for each in path.rglob("*.json*") if each.is_file()):
            file.write_bytes(file.read_bytes().replace(str(PLACE / name).encode(), str(root).encode()))
    for part, mode in (("sets", 0o400), ("state", 0o600)):
        for path in [root / part, *(root / part).rglob("*")]:
            path.chmod(0o700 if path.is_dir() else mode)
    live = root / "live/demo"
    for hidden in live.glob(".storekeeper-*"):
        for path in (each for each in [hidden, *hidden.rglob("*")] if each.is_dir()):
            path.chmod(0o700)
    program.declare(
        f"stack: demo\nstores:\n  main: {{kind: sqlite, path: {live}/main.db}}\n  papers: {{kind: files, path: {live}/papers}}\n"
    )
    return program


def picture(*folders: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file, to the bit, but what each command writes for itself: its record, who has the lock, and copies of what it read."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files = [path for path in files if "jobs" not in path.parts and path.name not in ("lock", "declared.json", "listing")]
    return {str(path): (path.stat().st_mode, path.stat().st_ino, path.read_bytes()) for path in files}


def answer(program: Program, *words: str) -> Ended:
    """The program's answer, without an interpreter of its own."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["--config", str(program.config), "--json", "--quiet", *words])
    return Ended(code, out.getvalue(), err.getvalue())


def hold_to(ended: Ended, code: int, *said: str) -> dict[str, Any]:
    document = ended.document
    assert ended.code == code, ended.out
    messages = " | ".join(problem["message"] for problem in document["problems"])
    assert all(word in messages for word in said), messages
    assert "Traceback" not in ended.err
    return document


# U1


@pytest.mark.fault("U1")
@pytest.mark.parametrize("generation", OLD)
def test_a_set_of_all_four_kinds_of_an_older_version_is_listed_verified_proven_and_restored(generation: str):
    root = reachable_directory()
    try:
        with start_server(major=MAJOR) as server:
            server.run("create database app")
            program = placed(root, generation, "whole")
            (root / "live/demo").mkdir(parents=True)
            text = (program.config / "stacks/demo.yml").read_text()
            text += f"  vectors: {{kind: chroma, path: {root}/live/vectors}}\n"
            text += f"  records: {{kind: postgresql, database: app, user: postgres, host: {server.socket}, programs: {server.programs}}}\n"
            program.declare(text)
            [found] = hold_to(answer(program, "list", "demo"), 0)["result"]["sets"]
            assert (found["state"], found["pinned"], set(found["stores"])) == ("proven", True, {"main", "papers", "vectors", "records"})
            hold_to(answer(program, "verify", "demo"), 0)
            [proven] = hold_to(answer(program, "prove", "demo"), 0)["result"]["sets"]
            assert {store["outcome"] for store in proven["stores"].values()} == {"ok"}
            words = ("restore", "demo", "latest", "--yes")
            vouched = [word for name in ("main", "papers", "vectors") for word in ("--nobody-uses", name)]
            assert answer(program, *words, *vouched).code in (0, 4)
            assert server.ask("select count(*) from documents", "app") == 60
        assert (program.rows(), (root / "live/demo/papers/a.txt").read_text()) == (ROWS, "hello")
        with closing(sqlite3.connect(root / "live/vectors/chroma.sqlite3")) as database:
            assert database.execute(
                "select count(distinct embedding_id) from embedding_metadata m join embeddings e on e.id = m.id"
            ).fetchone() == (120,)
    finally:
        shutil.rmtree(root)


@pytest.mark.fault("U1")
@pytest.mark.parametrize("generation", OLD)
def test_a_restore_that_an_older_version_left_unfinished_is_ended_by_resume(tmp_path: Path, generation: str):
    program = placed(tmp_path, generation, "small")
    before = unfinished(program.state / "demo")
    assert before is not None
    assert (before.purpose, before.begun["number"]) == ("restore", 2)
    assert answer(program, "resume", "demo").code in (0, 4)
    assert unfinished(program.state / "demo") is None
    assert (program.rows(), (tmp_path / "live/demo/papers/a.txt").read_text()) == (ROWS, "written since")
    assert not list((tmp_path / "live/demo").glob("*.stage"))
    assert answer(program, "restore", "demo", "--back", "--yes", "--nobody-uses", "main", "--nobody-uses", "papers").code in (0, 4)
    assert (tmp_path / "live/demo/papers/a.txt").read_text() == "hello", "the way back of a restore that it had ended"


@pytest.mark.fault("U1")
@pytest.mark.parametrize("generation", OLD)
def test_the_numbers_pins_and_runs_of_an_older_version_go_on(tmp_path: Path, generation: str):
    program = placed(tmp_path, generation, "small")
    assert answer(program, "resume", "demo").code in (0, 4)
    runs = hold_to(answer(program, "jobs", "demo"), 0)["result"]["jobs"]
    assert [run["verb"] for run in runs[:3]] == ["backup", "restore", "restore"]
    assert (runs[1]["outcome"], runs[2]["interrupted"]) == ("warning", True) or runs[1]["outcome"] == "ok"
    made = answer(program, "backup", "demo").document["result"]["set"]
    assert made["sequence"] == 4
    pins = [Records(tmp_path / "sets/demo/.records").pinned(each) for each in os.listdir(tmp_path / "sets/demo/.records")]
    assert sum(pin is not None and pin.until is not None for pin in pins) == 2
    assert answer(program, "status", "demo").code in (0, 4)


@pytest.mark.fault("U1")
def test_every_format_number_before_todays_is_among_what_is_kept():
    """A change of a format brings what the version before it wrote."""
    found = {}
    for name, (key, documents) in KEPT.items():
        found[name] = {formats.number_of(document, key=key, unnumbered=0) for document in documents()}

    for name, newest in newest_formats().items():
        assert set(range(0 if name == "marker" else 1, newest)) <= found[name], name
    assert all(found.values()), "each kind of document is there"


def _documents(*patterns: str) -> Callable[[], Iterator[Mapping[str, Any]]]:
    return lambda: (json.loads(path.read_bytes()) for pattern in patterns for path in FORMATS.rglob(pattern))


def _first_lines() -> Iterator[Mapping[str, Any]]:
    return (json.loads(path.read_bytes().splitlines()[0])["facts"] for path in FORMATS.rglob("journals/*.jsonl"))


def newest_formats() -> Mapping[str, int]:
    return {
        "manifest": manifest_module.SCHEMA,
        "records": records_module.SCHEMA,
        "pin": records_module.SCHEMA,
        "marker": repository_module.SCHEMA,
        "jobs": jobs.SCHEMA,
        "journal": journals_module.FORMAT,
    }


KEPT = {
    "manifest": ("schema", _documents("manifest.json")),
    "records": ("schema", _documents("verify-*.json", "prove-*.json")),
    "pin": ("schema", _documents("pin.json")),
    "marker": ("schema", _documents(".storekeeper")),
    "jobs": ("schema", _documents("jobs/demo/*.json")),
    "journal": ("format", _first_lines),
}


# A next format, as it may come: what is on disk is then the version before.


def renamed(old: str, new: str, worth: Callable[[Any], Any] = lambda value: value) -> formats.Step:
    def step(document: dict[str, Any]) -> dict[str, Any]:
        return {**{key: value for key, value in document.items() if key != old}, new: worth(document[old])}

    return step


@pytest.mark.fault("U1")
@pytest.mark.control("U1")
def test_a_manifest_of_the_version_before_is_upgraded_in_memory_and_stays_sealed_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Schema 2 would count the pause in seconds. The control: read without the step, the pause is a thousand times too long."""
    program = placed(tmp_path, "1", "small")
    path = program.repository / "demo" / FIRST / "manifest.json"
    before, pause = path.read_bytes(), read_manifest(path).pause_ms
    assert pause > 0
    monkeypatch.setattr(manifest_module, "SCHEMA", 2)
    assert read_manifest(path).pause_ms == pause, "the control: taken as it stands"
    monkeypatch.setattr(manifest_module, "STEPS", {1: renamed("pause_ms", "pause_ms", lambda value: value / 1000)})
    assert read_manifest(path).pause_ms == pause / 1000
    assert path.read_bytes() == before
    monkeypatch.setattr(manifest_module, "STEPS", {1: renamed("pauses", "pause_ms")})
    assert open_at(program).entry(FIRST).state == "damaged", "a step that does not fit is no crash"


@pytest.mark.fault("U1")
def test_records_pins_markers_and_runs_of_the_version_before_are_upgraded_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = placed(tmp_path, "1", "small")
    before = picture(program.repository, program.state)
    monkeypatch.setattr(records_module, "SCHEMA", 2)
    monkeypatch.setattr(records_module, "STEPS", {1: lambda found: {**found, "outcome": "failed", "reason": "as upgraded"}})
    entry = open_at(program).entry(FIRST)
    assert (entry.state, entry.reason) == ("damaged", "as upgraded")
    pinned = next(each for each in open_at(program).entries() if each.pinned)
    assert pinned.pinned is not None
    assert pinned.pinned.reason == "as upgraded"
    monkeypatch.setattr(repository_module, "STEPS", {0: lambda found: {**found, "id": "another"}})
    with pytest.raises(Refused, match="is repository another"):
        open_at(program)
    monkeypatch.setattr(jobs, "SCHEMA", 2)
    monkeypatch.setattr(jobs, "STEPS", {1: lambda found: {**found, "verb": "upgraded"}})
    assert {record.verb for record in jobs.records(program.state / "jobs/demo")} == {"upgraded"}
    assert picture(program.repository, program.state) == before


@pytest.mark.fault("U1")
@pytest.mark.control("U1")
def test_a_journal_of_the_version_before_is_written_anew_before_a_line_of_todays_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Format 2 would say `ms` in seconds. The control: a line added as it is would be upgraded once more when it is read."""
    program = placed(tmp_path, "1", "small")
    path = next(each.path for each in journals_module.journals(program.state / "demo") if each.is_closed)
    text = path.read_bytes()
    before = Journal.open(path).noted(Step.SWITCHED, "main")
    monkeypatch.setattr(journals_module, "FORMAT", 2)
    monkeypatch.setattr(journals_module, "STEPS", {1: _in_seconds})
    journal = Journal.open(path)
    after = journal.noted(Step.SWITCHED, "main")
    assert before is not None
    assert after is not None
    assert (after["ms"], path.read_bytes()) == (before["ms"] / 1000, text), "upgraded in memory, and nothing is written"

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_write_anew", lambda _: None)
        journal.write(Step.SWITCHED, "papers", ms=5.0)
    assert Journal.open(path).noted(Step.SWITCHED, "papers") == {"ms": 0.005}, "the control"

    path.write_bytes(text)
    Journal.open(path).write(Step.SWITCHED, "papers", ms=5.0)
    again = Journal.open(path)
    assert (again.noted(Step.SWITCHED, "papers"), again.noted(Step.SWITCHED, "main"), again.begun["format"]) == ({"ms": 5.0}, after, 2)
    monkeypatch.setattr(journals_module, "FORMAT", 1)
    with pytest.raises(NewerFormat, match="has format 2, this version reads up to 1"):
        Journal.open(path)


def _in_seconds(line: dict[str, Any]) -> dict[str, Any]:
    facts = line["facts"]
    return {**line, "facts": {**facts, "ms": facts["ms"] / 1000}} if "ms" in facts else line


def open_at(program: Program) -> StackSets:
    return Repository.open(program.repository, program.state).stack("demo")


# U2


def rewritten(path: Path, **more: Any) -> None:
    """The same document of another version, sealed where it is a manifest."""
    document = {**json.loads(path.read_bytes()), **more}
    if path.name == "manifest.json":
        del document["seal"]
        document["seal"] = _seal(document)
    tampered(path).write_text(json.dumps(document))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Four sets, of which retention would let one go, verified; nothing is unfinished."""
    program = Program(tmp_path)
    keep = "backup: {keep: {days: 0, daily: 0, weekly: 0, monthly: 0, at_least: 4}}\n"
    program.declare_small(more=keep)
    for _ in range(4):
        assert answer(program, "backup", "demo").code == 0
    assert answer(program, "verify", "demo", "--all").code == 0
    program.declare((program.config / "stacks/demo.yml").read_text().replace("at_least: 4", "at_least: 3"))
    return program


def ids(program: Program) -> list[str]:
    return [each["id"] for each in answer(program, "list", "demo").document["result"]["sets"]]


@pytest.mark.fault("U2")
@pytest.mark.parametrize("kind", ["manifest", "verify", "prove"])
def test_a_set_that_a_newer_version_made_or_looked_at_is_neither_used_nor_removed(program: Program, kind: str):
    first, *_ = ids(program)
    if kind == "manifest":
        rewritten(program.repository / "demo" / first / "manifest.json", schema=7, compressed="as nobody knows yet")
    elif kind == "verify":
        rewritten(next((program.repository / "demo/.records" / first).iterdir()), schema=7)
    else:
        Records(program.repository / "demo/.records").add(first, "prove", "ok", START)
        rewritten(next((program.repository / "demo/.records" / first).glob("prove-*")), schema=7)
    before = picture(program.repository, program.state, program.root / "live")
    for words in (("restore", "demo", first, "--yes"), ("restore", "demo", first, "--plan")):
        document = hold_to(answer(program, *words), 2, "has schema 7, this version reads up to 1")
        assert len(document["problems"]) == 1
    hold_to(answer(program, "verify", "demo", first), 3, "has schema 7, this version reads up to 1")
    assert answer(program, "prove", "demo", first).code != 0
    found = next(each for each in answer(program, "list", "demo").document["result"]["sets"] if each["id"] == first)
    assert (found["state"], found["verified_at"]) == ("unprovable", None)
    pruned = hold_to(answer(program, "prune", "demo"), 0)["result"]
    assert (pruned["removed"], [each["reasons"] for each in pruned["kept"] if each["id"] == first]) == ([], [["a newer version made it"]])
    assert picture(program.repository, program.state, program.root / "live") == before


@pytest.mark.fault("U2")
def test_a_pin_of_a_newer_version_holds_and_is_not_taken_away(program: Program):
    first, *_ = ids(program)
    assert answer(program, "pin", "demo", first).code == 0
    pin = program.repository / "demo/.records" / first / "pin.json"
    rewritten(pin, schema=7, until="2001-01-01T00:00:00Z", unless="a moon is full")
    before = picture(program.repository, program.state)
    hold_to(answer(program, "unpin", "demo", first), 2, "pin.json has schema 7, this version reads up to 1")
    kept = hold_to(answer(program, "prune", "demo"), 0)["result"]["kept"]
    assert ["pinned: its record pin.json has schema 7, this version reads up to 1"] in [each["reasons"] for each in kept]
    assert picture(program.repository, program.state) == before


@pytest.mark.fault("U2")
def test_a_repository_of_a_newer_version_is_refused_by_every_verb_and_nothing_is_written(program: Program):
    rewritten(program.repository / ".storekeeper", schema=7)
    before = picture(program.repository, program.state)
    for words in (("backup", "demo"), ("list", "demo"), ("verify", "demo"), ("restore", "demo", "latest", "--yes"), ("prune", "demo")):
        document = hold_to(answer(program, *words), 2, ".storekeeper has schema 7, this version reads up to 1")
        assert (len(document["problems"]), document["problems"][0]["next"]) == (1, "pip install --upgrade storekeeper")
    assert picture(program.repository, program.state) == before


@pytest.mark.fault("U2")
def test_a_journal_of_a_newer_version_stops_every_verb_that_writes(program: Program):
    journal = Journal.create(program.state / "demo", {"purpose": "restore", "stack": "demo", "set": "x", "stores": ["main"]})
    line = json.loads(journal.path.read_bytes())
    line["facts"]["format"] = 7
    journal.path.write_text(json.dumps(line) + "\n" + '{"step": "teleporting"}\n{}\n')
    before = picture(program.repository, program.state, program.root / "live")
    for words in (("backup", "demo"), ("restore", "demo", "latest", "--yes"), ("prune", "demo"), ("resume", "demo")):
        hold_to(answer(program, *words), 2, "has format 7, this version reads up to 1")
    hold_to(answer(program, "status", "demo"), 3, "has format 7, this version reads up to 1")
    assert picture(program.repository, program.state, program.root / "live") == before


@pytest.mark.fault("U2")
def test_a_run_that_a_newer_version_recorded_is_not_judged_and_does_not_keep_a_backup_from_beginning(program: Program):
    record = max((program.state / "jobs/demo").glob("*.json"))
    rewritten(record, schema=7, document={"ended": "in a way that nobody knows yet"})
    text = record.read_bytes()
    for words in (("jobs", "demo"), ("prune", "demo")):
        hold_to(answer(program, *words), 2, f"the record {record} has schema 7, this version reads up to 1")
    hold_to(answer(program, "status", "demo"), 3, "has schema 7")
    assert (len(ids(program)), record.read_bytes()) == (4, text)
    assert answer(program, "backup", "demo").code == 0
    assert record.read_bytes() == text


@pytest.mark.fault("U2")
@pytest.mark.parametrize("newer", ["5\nof 7 digits\n", "v7:5\n"])
def test_a_number_in_another_form_is_not_taken_for_none(program: Program, newer: str):
    """The sequence has no number of a format: it is digits and nothing else, for ever."""
    (program.state / "demo/sequence").write_text(newer)
    before = picture(program.repository, program.state)
    hold_to(answer(program, "backup", "demo"), 2, "holds no sequence number")
    assert picture(program.repository, program.state) == before


@pytest.mark.control("U2")
def test_a_reader_that_ignores_the_number_restores_what_it_cannot_read_and_forgets_a_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Schema 7 would store bytes as kilobytes and mark a set that is only begun; in format 7 `closed` would not be the end."""
    sets = open_sets(tmp_path)
    publish(sets, write_source(tmp_path / "source"))
    newest = publish(sets, tmp_path / "source")
    stores = json.loads((newest.path / "manifest.json").read_bytes())["stores"]
    rewritten(newest.path / "manifest.json", schema=7, is_only_begun=True, stores={"papers": {**stores["papers"], "bytes": 3}})
    assert sets.resolve("latest").entry.sequence == 1
    journal = Journal.create(tmp_path / "state/demo", {"purpose": "restore", "stack": "demo", "stores": ["main"]})
    journal.write(Step.CLOSED, result="half")
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"format":1', b'"format":7'))
    with pytest.raises(NewerFormat):
        unfinished(tmp_path / "state/demo")

    monkeypatch.setattr(formats, "refuse_newer", lambda *_, **__: None)
    wrong = sets.resolve("latest").entry
    assert (wrong.id, wrong.state, wrong.bytes) == (newest.id, "verified", 3)
    assert unfinished(tmp_path / "state/demo") is None
