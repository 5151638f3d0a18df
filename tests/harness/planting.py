"""Disagreements planted by the dozen in a Maestro, of every class and in every place, and the findings that must come of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from tests.harness import chroma
from tests.harness.maestro import CHUNKS, COLLECTIONS, DENSE, SPARSE, Document, Maestro, database, documents

Finding = tuple[str, str, str]  # class, place, document
METADATA = "metadata/processed_documents"
CHUNK_PLACES = {name: f"vectors/{name}" for name in COLLECTIONS}
FILE_PLACES = {
    "raw_pdfs": "papers/raw_pdfs/{id}_*",
    "processed/markdown": "papers/processed/markdown/{id}.md",
    "processed/metadata": "papers/processed/metadata/{id}.json",
}
PLACES = (METADATA, *CHUNK_PLACES.values(), *FILE_PLACES.values())
STATES = ("pending", "queued", "processing")
ORPHANS, LEFTOVERS = 90, 20
_CHANGE = """
for name, ids in arguments["gone"].items():
    collection(name).delete(ids=ids)
for name, ids in arguments["given"].items():
    metadatas = collection(name).get(ids=ids)["metadatas"]
    collection(name).update(ids=ids, metadatas=[{"user_id": each["user_id"] % 3 + 1} for each in metadatas])
"""


class Planting:
    """What is planted in an application of many complete documents; `found` is all that a check may tell of it."""

    def __init__(self, application: Maestro) -> None:
        self._application = application
        self._numbers = iter(range(20_000))
        self._gone: dict[str, list[str]] = {name: [] for name in COLLECTIONS}
        self._given: dict[str, list[str]] = {name: [] for name in COLLECTIONS}
        self.found: set[Finding] = set()
        self.in_flight: list[str] = []

    def plant(self) -> None:
        """Every class, each of documents of all three users."""
        self._orphans()
        self._leftovers()
        for place in PLACES:
            self._missing(place)
        self._partial()
        self._foreign()
        self._in_flight()
        chroma.execute(self._application.vectors, _CHANGE, gone=self._gone, given=self._given)

    def of(self, kind: str) -> set[Finding]:
        return {each for each in self.found if each[0] == kind}

    def _take(self, count: int) -> list[str]:
        return [documents(1, first=next(self._numbers))[0].id for _ in range(count)]

    def _tell(self, kind: str, places: Iterable[str], ids: Iterable[str]) -> None:
        self.found |= {(kind, place, each) for place in places for each in ids}

    def _orphans(self) -> None:
        """Documents of which the row alone is gone, and one stranger in each place that never was a document."""
        some = self._take(ORPHANS)
        for each in some:
            self._application.delete_row(each)
        self._tell("orphan", PLACES, some)
        self._application.add_metadata(["stranger-0"])
        self._tell("orphan", [METADATA], ["stranger-0"])
        for number, (name, place) in enumerate(CHUNK_PLACES.items()):
            self._application.add_chunks([Document(f"stranger-1{number}", "2")], [name])
            self._tell("orphan", [place], [f"stranger-1{number}"])
        for number, (folder, place) in enumerate(FILE_PLACES.items()):
            self._application.add_files(f"stranger-2{number}", [folder])
            self._tell("orphan", [place], [f"stranger-2{number}"])

    def _leftovers(self) -> None:
        """Documents that failed three days ago, of which all is still there; others failed an hour ago, which is nobody's fault yet."""
        old, young = self._take(LEFTOVERS), self._take(3)
        for ids, age in ((old, timedelta(days=3)), (young, timedelta(hours=1))):
            self._end(ids, "failed", age)
        self._tell("leftover", PLACES, old)

    def _missing(self, place: str) -> None:
        some = self._take(3)
        collection = next((name for name, label in CHUNK_PLACES.items() if label == place), None)
        if place == METADATA:
            for each in some:
                self._application.delete_metadata(each)
            self._tell("missing", [place], some)
        elif collection is None:
            folder = next(name for name, label in FILE_PLACES.items() if label == place)
            for each in some:
                self._application.delete_file(each, folder)
            self._tell("missing", [place], some)
        elif collection == DENSE:  # nothing in any collection: missing in both
            for name in COLLECTIONS:
                self._gone[name] += _chunks(some, range(CHUNKS))
            self._tell("missing", CHUNK_PLACES.values(), some)

    def _partial(self) -> None:
        for name, place in CHUNK_PLACES.items():
            nothing, fewer = self._take(3), self._take(3)
            self._gone[name] += _chunks(nothing, range(CHUNKS)) + _chunks(fewer, [1])
            self._tell("partial", [place], [*nothing, *fewer])

    def _foreign(self) -> None:
        for name, place in CHUNK_PLACES.items():
            some = self._take(3)
            self._given[name] += _chunks(some, range(CHUNKS))
            self._tell("foreign", [place], some)

    def _in_flight(self) -> None:
        """Documents that are being worked on, of which each has something and lacks something."""
        for state in STATES:
            some = self._take(3)
            self._end(some, state, timedelta(days=9))
            for each in some:
                self._application.delete_metadata(each)
                self._application.delete_file(each, "processed/markdown")
            self._gone[SPARSE] += _chunks(some, [0, 2])
            self.in_flight += some

    def _end(self, ids: Sequence[str], state: str, age: timedelta) -> None:
        at = (datetime.now(UTC) - age).strftime("%Y-%m-%d %H:%M:%S")
        with database(self._application.main) as main:
            main.executemany("update documents set processing_status = ?, updated_at = ? where id = ?", [(state, at, each) for each in ids])


def _chunks(ids: Iterable[str], numbers: Iterable[int]) -> list[str]:
    return [f"{each}_{number}" for each in ids for number in numbers]
