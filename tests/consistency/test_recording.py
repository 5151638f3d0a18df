"""The ids of every rule as a set records them at its moment: compared in its manifest, found again by `history`."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from storekeeper.consistency import recording
from storekeeper.consistency.recording import Recorded
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed, Unknown
from storekeeper.sets import publishing
from storekeeper.sets.context import Context
from storekeeper.sets.point import Point
from storekeeper.stack.config import load_places
from storekeeper.stores.identities import Identity, key_of
from storekeeper.stores.protocol import Hold
from storekeeper.verbs import opening
from tests.harness import chroma
from tests.harness.campaign import Campaign
from tests.harness.chroma import Writer
from tests.harness.maestro import CHUNKS, COLLECTIONS, FOLDERS, SPARSE, Document, Maestro, database
from tests.harness.program import Program, hold_to
from tests.harness.terminal import on_terminal

# Four threads ingest, process again and delete at once; what is in flight says so before anything of it is touched.
WRITERS = """
import os, random, sqlite3, threading
collections = [collection(name) for name in arguments["collections"]]
counted = [0] * 4


def write(number):
    main, metadata = (sqlite3.connect(arguments[name], timeout=60, isolation_level=None) for name in ("main", "metadata"))
    chance, alive = random.Random(number), []

    def files(document):
        return [os.path.join(arguments["papers"], folder, name.format(document)) for folder, name in arguments["folders"].items()]

    def state(document, word):
        main.execute("update documents set processing_status = ?, updated_at = datetime('now') where id = ?", (word, document))

    def fill(document):
        metadata.execute("insert into processed_documents values (?, 'a title', '[]')", (document,))
        for into in collections:
            into.add(
                ids=[f"{document}_{each}" for each in range(arguments["chunks"])],
                embeddings=vectors(arguments["chunks"], 8, counted[number] + 1),
                metadatas=[{"doc_id": document, "user_id": 1, "page": each} for each in range(arguments["chunks"])],
            )
        for path in files(document):
            with open(path, "w") as file:
                file.write(document)
        state(document, "completed")

    def empty(document):
        state(document, "processing")
        metadata.execute("delete from processed_documents where doc_id = ?", (document,))
        for each in collections:
            each.delete(where={"doc_id": document})
        for path in files(document):
            os.unlink(path)

    while True:
        counted[number] += 1
        document = f"new-{number}-{counted[number]:06}"
        main.execute(
            "insert into documents values (?, 1, 'a title', 'processing', ?, datetime('now'))", (document, arguments["chunks"])
        )
        fill(document)
        alive.append(document)
        if len(alive) > 20:
            again = chance.choice(alive)
            empty(again)
            if chance.random() < 0.5:
                fill(again)
            else:
                main.execute("delete from documents where id = ?", (again,))
                alive.remove(again)


threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(4)]
for each in threads:
    each.start()
while all(each.is_alive() for each in threads):
    time.sleep(0.05)
    say([sum(counted), 0.0])
"""


@contextmanager
def four_writers(application: Maestro) -> Iterator[Writer]:
    words: dict[str, Any] = {"main": str(application.main), "metadata": str(application.metadata), "papers": str(application.papers)}
    with chroma.running(application.vectors, WRITERS, collections=COLLECTIONS, folders=FOLDERS, chunks=CHUNKS, **words) as process:
        writer = Writer(process)
        while writer.look() < 100:
            time.sleep(0.05)
        yield writer


def backed_up(program: Program, code: int = 0) -> dict[str, Any]:
    made = hold_to(program.answer("backup", "maestro"), code, {0: "ok", 4: "warning"}[code])["result"]["set"]
    return dict(made)


def manifest_of(made: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads((Path(made["path"]) / "manifest.json").read_text()))


def vanished(made: Mapping[str, Any]) -> set[str]:
    """The files that went away after the moment was pinned and before they were copied: the set says so of each."""
    lines = (Path(made["path"]) / "papers/tree.jsonl").read_text().splitlines()
    return {each["path"] for each in map(json.loads, lines) if each["type"] == "vanished"}


def test_a_set_of_stores_that_agree_says_so(program: Program) -> None:
    made = backed_up(program)
    assert made["agreements"] == {
        "documents": {
            "documents": 32,
            "in_flight": 2,
            "counts": {"orphan": 0, "missing": 0, "partial": 0, "leftover": 0, "foreign": 0},
            "holes": 0,
            "extras": 0,
            "unread": [],
        }
    }
    places = sorted(path.relative_to(made["path"]).as_posix() for path in Path(made["path"]).glob("*/ids-*"))
    assert places == [
        "main/ids-documents-0.jsonl",
        "metadata/ids-documents-1.jsonl",
        *(f"papers/ids-documents-{number}.jsonl" for number in (4, 5, 6)),
        *(f"vectors/ids-documents-{number}.jsonl" for number in (2, 3)),
    ]
    hold_to(program.answer("verify", "maestro"), 0, "ok")


def test_what_disagrees_at_the_moment_stands_in_the_manifest(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    application.delete_metadata("doc-00004")
    application.delete_chunks("doc-00005", [SPARSE])
    application.give_chunks_to("3", "doc-00006", [SPARSE])
    told = backed_up(program)["agreements"]["documents"]
    assert told["counts"] == {"orphan": 6, "missing": 1, "partial": 1, "leftover": 0, "foreign": 1}
    assert (told["holes"], told["extras"]) == (2, 7)


def test_a_place_that_cannot_be_recorded_is_a_warning_and_the_data_is_in_the_set(
    program: Program, application: Maestro, declare: Any
) -> None:
    with database(application.metadata) as metadata:
        metadata.execute("alter table processed_documents rename column doc_id to other")
    document = hold_to(program.answer("backup", "maestro"), 4, "warning", "the ids of metadata/processed_documents could not be recorded")
    told = document["result"]["set"]["agreements"]["documents"]
    assert (told["documents"], told["counts"], told["holes"], told["unread"]) == (None, None, None, ["metadata/processed_documents"])
    hold_to(program.answer("verify", "maestro"), 0, "ok")
    found = hold_to(program.answer("history", "maestro", "doc-00001"), 3, "unknown", "were not recorded")
    assert [each["rules"]["documents"]["is"] for each in found["result"]["sets"]] == ["unknown"]


def test_a_place_that_fails_half_way_leaves_no_file_and_the_data_is_in_the_set(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scratch database of one place cannot be read on after some ids."""

    class Failing(recording.Sorted):
        def __iter__(self) -> Iterator[Identity]:
            ids = super().__iter__()
            yield from itertools.islice(ids, 3)
            if self._path.stem == "documents.3":
                raise Failed("ids could not be kept")
            yield from ids

    monkeypatch.setattr(recording, "Sorted", Failing)
    with in_process(program) as context:
        made = publishing.take_set(context, purpose="backup")
    assert made.manifest is not None
    assert made.manifest.agreements["documents"].unread == (f"vectors/{SPARSE}",)
    assert [each.message for each in made.manifest.problems if "could not be recorded: ids could not be kept" in each.message]
    assert not (made.path / "vectors/ids-documents-3.jsonl").exists()
    hold_to(program.answer("verify", "maestro"), 0, "ok")


def test_ids_are_part_of_what_is_sealed(program: Program) -> None:
    made = backed_up(program)
    ids = Path(made["path"]) / "main/ids-documents-0.jsonl"
    ids.chmod(0o600)
    ids.write_bytes(ids.read_bytes().replace(b"doc-00007", b"doc-00008"))
    hold_to(program.answer("verify", "maestro"), 1, "failed", "ids-documents-0.jsonl")


def test_history_follows_a_document_through_the_sets(program: Program, application: Maestro) -> None:
    backed_up(program)
    application.add([Document("comes", "2")])
    whole = backed_up(program)
    application.delete_file("comes", "processed/markdown")
    backed_up(program)
    application.delete_row("comes")
    backed_up(program)
    document = hold_to(program.answer("history", "maestro", "comes"), 0, "ok")["result"]
    assert [each["rules"]["documents"]["is"] for each in document["sets"]] == ["absent", "whole", "incomplete", "orphan"]
    assert document["sets"][1]["rules"]["documents"]["owner"] == "2"
    assert [(each["class"], each["place"]) for each in document["sets"][2]["rules"]["documents"]["findings"]] == [
        ("missing", "papers/processed/markdown/{id}.md")
    ]
    assert document["newest_whole"] == whole["id"]
    at_work = hold_to(program.answer("history", "maestro", "at-work"), 0, "ok")["result"]
    assert {each["rules"]["documents"]["is"] for each in at_work["sets"]} == {"in_flight"}
    assert at_work["newest_whole"] is None


def test_history_says_what_is_in_no_set_and_refuses_what_is_no_rule(program: Program) -> None:
    assert hold_to(program.answer("history", "maestro", "doc-00001"), 0, "ok", "no set that can be restored")["result"]["sets"] == []
    backed_up(program)
    found = hold_to(program.answer("history", "maestro", "nobody"), 0, "ok", "no set that can be restored")["result"]
    assert [each["rules"]["documents"]["is"] for each in found["sets"]] == ["absent"]
    hold_to(program.answer("history", "maestro", "doc-00001", "--rule", "others"), 2, "refused", "there are documents")
    text = program.run("history", "maestro", "doc-00001")
    assert text.code == 0
    assert "whole" in text.out


def test_a_set_from_before_there_were_rules_knows_nothing_of_documents(program: Program, application: Maestro) -> None:
    declared = json.loads(application.stack_file())
    rules = declared.pop("consistency")
    program.declare(json.dumps(declared), "maestro")
    assert backed_up(program)["agreements"] == {}
    program.declare(json.dumps({**declared, "consistency": rules}), "maestro")
    found = hold_to(program.answer("history", "maestro", "doc-00001"), 0, "ok")["result"]
    assert [each["rules"] for each in found["sets"]] == [{}]
    assert "no rule was declared" in program.run("history", "maestro", "doc-00001").out


HOSTILE = ["", " ", "a", "a\nb", "b'\"", "id\\", "üñ", "\udcff\udcfe", "x" * 10_000, "\U0001f600", "-rf", "$(x)", "zz"]


def test_any_document_is_found_by_bisection_as_by_reading_all(tmp_path: Path) -> None:
    chance = random.Random(7)
    ids = [*HOSTILE, *(f"doc-{chance.randrange(3_000):04}" for _ in range(2_000)), *(f"{chance.random()}" for _ in range(500))]
    lines = sorted(
        (Identity(each, f"owner {number % 3}", chunks=number) for number, each in enumerate(ids)), key=lambda each: key_of(each.id)
    )
    path = tmp_path / "ids"
    with open(path, "w", encoding="ascii") as file:
        file.writelines(json.dumps({"id": each.id, "owner": each.owner, "chunks": each.chunks}) + "\n" for each in lines)
    found = Recorded(path)
    assert list(found) == lines
    for each in {*ids, *(f"doc-{number:04}" for number in range(0, 3_000, 7)), "nobody", "\x00", "\U0010ffff"}:
        assert found.of(each, path.stat().st_size) == [line for line in lines if line.id == each]
    path.write_bytes(b"")
    assert found.of("a", 0) == []


IDS = [f"doc-{number:05}" for number in range(500)]


def recorded(path: Path, ids: Sequence[str] = IDS) -> Recorded:
    path.write_text("".join(json.dumps({"id": each}) + "\n" for each in ids), encoding="ascii")
    return Recorded(path)


def rotten(document: str) -> Iterator[str]:
    """The id with each bit of its last two signs flipped, where it is another printable text that is no neighbour's."""
    for place in (-1, -2):
        for bit in range(7):
            sign = chr(ord(document[place]) ^ 1 << bit)
            found = document[:place] + sign + document[place:][1:]
            if sign.isprintable() and sign not in '"\\' and found not in IDS[IDS.index(document) - 1 :][:3]:
                yield found


def test_an_id_that_rotted_is_unknown_and_not_absent(tmp_path: Path) -> None:
    tried = 0
    for document in (IDS[0], IDS[1], IDS[7], IDS[250], IDS[355], IDS[-2], IDS[-1]):
        for other in rotten(document):
            ids = [other if each == document else each for each in IDS]
            found = recorded(tmp_path / "ids", ids)
            if ids == sorted(ids):
                continue  # nothing but its checksum could tell
            tried += 1
            with pytest.raises(Unknown, match="not in order"):
                found.of(document, (tmp_path / "ids").stat().st_size)
            with pytest.raises(Unknown, match="not in order"):
                list(found)
    assert tried > 40


def test_control_the_line_in_its_place_alone_says_that_it_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_in_order", lambda _, key: key)
    found = recorded(tmp_path / "ids", ["doc-00999" if each == "doc-00250" else each for each in IDS])
    assert found.of("doc-00250", (tmp_path / "ids").stat().st_size) == []


def test_a_file_of_ids_that_was_cut_is_unknown(tmp_path: Path) -> None:
    found, size = recorded(tmp_path / "ids"), (tmp_path / "ids").stat().st_size
    assert [each.id for each in found.of(IDS[-1], size)] == [IDS[-1]]
    recorded(tmp_path / "ids", IDS[:-1])
    with pytest.raises(Unknown, match=r"bytes, and had"):
        found.of(IDS[-1], size)


def told_by_history(program: Program, code: int, outcome: str, *said: str) -> list[tuple[str, str | None, list[str]]]:
    """Of each set its state, why nothing of it is known, and how it holds the document."""
    found = hold_to(program.answer("history", "maestro", "doc-00007"), code, outcome, *said)["result"]["sets"]
    return [(each["state"], each["why"], [rule["is"] for rule in each["rules"].values()]) for each in found]


def test_history_knows_nothing_of_a_damaged_set_and_goes_on_with_the_others(program: Program) -> None:
    made = backed_up(program)
    ids = Path(made["path"]) / "main/ids-documents-0.jsonl"
    ids.chmod(0o600)
    ids.write_bytes(ids.read_bytes().replace(b"doc-00007", b"doc-00077"))
    assert told_by_history(program, 3, "unknown", made["id"], "not in order", f"verify maestro {made['id']}") == [
        ("verified", None, ["unknown"])
    ]
    hold_to(program.answer("verify", "maestro"), 1, "failed", "ids-documents-0.jsonl")
    good = backed_up(program)
    assert told_by_history(program, 0, "ok") == [("damaged", None, ["unknown"]), ("verified", None, ["whole"])]
    (Path(made["path"]) / "manifest.json").write_bytes(b"rot")
    (state, why, rules), _ = told_by_history(program, 0, "ok")
    assert (state, rules) == ("damaged", [])
    assert why is not None
    assert "manifest" in why
    assert "manifest" in program.run("history", "maestro", "doc-00007").out
    assert "no rule was declared" not in program.run("history", "maestro", "doc-00007").out
    hold_to(program.answer("history", "maestro", "doc-00007", "--rule", "documents"), 0, "ok")
    (Path(good["path"]) / "papers/ids-documents-4.jsonl").unlink()
    assert told_by_history(program, 3, "unknown", good["id"], "cannot be read")[1] == ("verified", None, ["unknown"])


@pytest.mark.slow
@pytest.mark.fault("F14")
def test_points_taken_under_four_writers_have_no_hole_and_nothing_too_much(
    program: Program, application: Maestro, campaign: Campaign
) -> None:
    """Holes only where a file went away between the moment and its copy, which each set names; everything else stands still."""
    points, unsaid, extras, gone = campaign.trials(reduced=25, full=25), 0, 0, 0
    with four_writers(application) as writer:
        before = writer.look()
        for _ in range(points):
            ended = program.answer("backup", "maestro")
            assert ended.code in (0, 4), ended.err
            made = ended.document["result"]["set"]
            told, lost = made["agreements"]["documents"], vanished(made)
            assert told["unread"] == []
            gone += len(lost)
            unsaid += max(0, told["holes"] - len(lost))
            extras += told["extras"]
        written = writer.look() - before
    campaign.found(
        points,
        "points under four writers",
        f"{unsaid} holes, {extras} extras, {gone} files said to be gone, {written:,} documents ingested",
    )
    assert (unsaid, extras) == (0, 0)
    assert written >= points


@contextmanager
def each_at_its_own_moment(holds: Mapping[str, Hold], progress: Progress) -> Iterator[Point]:
    """What backups do that know of one store only."""
    with ExitStack() as held:
        pinned, pauses = {}, {}
        for name, hold in holds.items():
            held.callback(hold.close)
            hold.prepare()
            pinned[name] = hold.pin()
            hold.copy()
            hold.release()
            pauses[name] = hold.pause_ms
            time.sleep(0.3)
        yield Point(pinned, pauses)


@pytest.mark.slow
@pytest.mark.control("F14")
def test_control_stores_that_are_pinned_one_after_the_other_disagree(
    program: Program, application: Maestro, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "one_point", each_at_its_own_moment)
    with four_writers(application), in_process(program) as context:
        found = [publishing.take_set(context, purpose="backup").manifest for _ in range(3)]
    agreements = [each.agreements["documents"] for each in found if each is not None]
    assert sum((each.holes or 0) + (each.extras or 0) for each in agreements) > 0


# --- restore ---


def test_a_restore_ends_with_a_check(program: Program, application: Maestro) -> None:
    backed_up(program)
    application.delete_file("doc-00004", "processed/markdown")
    application.add([Document("newer")])
    document = hold_to(program.answer("restore", "maestro", "latest", "--yes"), 0, "ok")
    assert document["result"]["agreements"]["documents"]["outcome"] == "ok"
    assert document["result"]["agreements"]["documents"]["documents"] == 32
    back = hold_to(program.answer("restore", "maestro", "--back", "--yes"), 4, "warning", "1 missing in papers")
    assert back["result"]["agreements"]["documents"]["counts"]["missing"] == 1


def test_a_set_whose_stores_disagreed_is_restored_and_says_so(program: Program, application: Maestro) -> None:
    application.delete_row("doc-00003")
    backed_up(program)
    document = hold_to(program.answer("restore", "maestro", "latest", "--yes"), 4, "warning", "orphan")
    assert document["result"]["agreements"]["documents"]["counts"]["orphan"] == 6
    assert "orphan" in program.run("restore", "maestro", "--back", "--yes").out


ONLY = ("restore", "maestro", "latest", "--only", "main")


@pytest.mark.fault("E-18")
def test_one_store_alone_is_not_restored_where_the_others_would_disagree(program: Program, application: Maestro) -> None:
    backed_up(program)
    application.delete_row("doc-00004")
    application.delete_metadata("doc-00004")
    application.add([Document("newer")])
    planned = hold_to(program.answer(*ONLY, "--plan"), 4, "warning", "would disagree: 6 orphan, 1 missing")
    assert planned["result"]["plan"]["disagreements"]["documents"]["counts"] == {
        "orphan": 6,
        "missing": 1,
        "partial": 0,
        "leftover": 0,
        "foreign": 0,
    }
    hold_to(program.answer(*ONLY, "--yes"), 2, "refused", "would disagree: 6 orphan, 1 missing", "--allow-disagreement")
    with database(application.main) as main:
        assert main.execute("select count(*) from documents where id = 'newer'").fetchone() == (1,)
    document = hold_to(program.answer(*ONLY, "--yes", "--allow-disagreement"), 4, "warning", "6 orphan, 1 missing")
    assert document["result"]["agreements"]["documents"]["counts"]["orphan"] == 6


@pytest.mark.fault("E-18")
@pytest.mark.parametrize(("store", "kind", "count"), [("main", "orphan", 6), ("metadata", "missing", 1)])
def test_what_an_unreadable_store_hides_now_counts_as_new(
    program: Program, application: Maestro, store: str, kind: str, count: int
) -> None:
    """A store that cannot be read would be replaced: of a document that came since, the others would hold something all the same."""
    backed_up(program)
    application.add([Document("newer")])
    path = application.main if store == "main" else application.metadata
    path.write_bytes(b"no database" * 1000)
    words = ("restore", "maestro", "latest", "--only", store, "--accept-unreadable", store, "--plan")
    planned = hold_to(program.answer(*words), 4, "warning", f"would disagree: {count} {kind}")
    told = planned["result"]["plan"]["disagreements"]["documents"]
    assert {each["document"] for each in told["samples"]} == {"newer"}
    assert told["counts"][kind] == count


@pytest.mark.fault("E-18")
def test_what_disagrees_already_does_not_come_of_the_restore(program: Program, application: Maestro) -> None:
    application.delete_file("doc-00004", "processed/markdown")
    backed_up(program)
    hold_to(program.answer(*ONLY, "--yes"), 4, "warning", "1 missing")


@pytest.mark.fault("E-18")
def test_where_a_set_recorded_no_ids_one_store_alone_needs_a_word(program: Program, application: Maestro) -> None:
    declared = json.loads(application.stack_file())
    rules = declared.pop("consistency")
    program.declare(json.dumps(declared), "maestro")
    backed_up(program)
    program.declare(json.dumps({**declared, "consistency": rules}), "maestro")
    hold_to(program.answer(*ONLY, "--yes"), 3, "unknown", "did not record the ids", "--allow-disagreement")
    hold_to(program.answer(*ONLY, "--yes", "--allow-disagreement"), 4, "warning")


@pytest.mark.fault("E-18")
@pytest.mark.parametrize("is_known", [True, False])
def test_nobody_is_asked_for_a_yes_to_what_would_be_refused(program: Program, application: Maestro, is_known: bool) -> None:
    """On a terminal, with the outcome that the verb itself would have."""
    declared = json.loads(application.stack_file())
    rules = declared.pop("consistency")
    program.declare(json.dumps({**declared, "consistency": rules} if is_known else declared), "maestro")
    backed_up(program)
    program.declare(json.dumps({**declared, "consistency": rules}), "maestro")
    application.delete_row("doc-00004")
    application.delete_metadata("doc-00004")
    shown, code = on_terminal(program, *ONLY, answer="maestro")
    assert ("to go on" in shown, code) == (False, 2 if is_known else 3), shown
    assert "--allow-disagreement" in shown
    assert "to go on" in on_terminal(program, *ONLY, "--allow-disagreement", answer="no")[0]


@contextmanager
def in_process(program: Program) -> Iterator[Context]:
    places = load_places(program.config)
    with opening.opened(places, opening.declared(places, "maestro"), Progress(), lock="backup") as opened:
        yield opening.with_sets(opened, places, may_create=True)
