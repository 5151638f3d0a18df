"""Random damage to a Chroma directory: all of it is found, and it is said at which level (checksums, decoding, proof)."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.publishing import take_set
from storekeeper.stack.model import ChromaModel, Stack
from storekeeper.stores.chroma import checking, layout
from storekeeper.stores.chroma.dumping import CONTENT
from storekeeper.stores.chroma.index import read_header
from storekeeper.stores.record import StoreRecord
from tests.harness.campaign import Campaign
from tests.harness.chroma import Keeper, execute
from tests.harness.chroma_files import TWO, made_once, relist, segment_of, writable
from tests.harness.damage import flip
from tests.harness.stacks import open_context

CHECKSUMS, DECODING, PROOF, NOT_FOUND = "checksums", "decoding", "the proof", "NOT FOUND"


@dataclass(frozen=True)
class Made:
    """A set of one Chroma store."""

    keeper: Keeper
    folder: Path
    manifest: Manifest

    @property
    def record(self) -> StoreRecord:
        return self.manifest.stores["vectors"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    live = made_once(tmp_path_factory, "two", TWO)
    root = tmp_path_factory.mktemp("found")
    for name in ("state", "private"):
        (root / name).mkdir(mode=0o700)
    stack = Stack(stack="demo", stores={"vectors": ChromaModel(kind="chroma", path=live)})
    entry = take_set(open_context(root, stack), purpose="backup")
    assert entry.manifest is not None
    return Made(Keeper(live, root / "room"), entry.path, entry.manifest)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


def _any_file(directory: Path, chance: random.Random) -> Path:
    """The larger, the likelier."""
    files = _files(directory)
    return chance.choices(files, [path.stat().st_size for path in files])[0]


def _segment(directory: Path, chance: random.Random) -> Path:
    return segment_of(directory, chance.choice(["papers", "notes"]))


def _flip_a_bit(directory: Path, chance: random.Random) -> None:
    path = _any_file(directory, chance)
    flip(path, chance.randrange(path.stat().st_size))


def _lose_a_block(directory: Path, chance: random.Random) -> None:
    """What a disk gives back for a block that it cannot read any more: something else."""
    path = _any_file(directory, chance)
    with open(path, "r+b") as file:
        file.seek(chance.randrange(path.stat().st_size) // 512 * 512)
        file.write(chance.randbytes(512))


def _cut_a_file(directory: Path, chance: random.Random) -> None:
    path = chance.choice(_files(directory))
    os.truncate(path, chance.randrange(path.stat().st_size))


def _lose_a_file(directory: Path, chance: random.Random) -> None:
    chance.choice(_files(directory)).unlink()


def _lose_a_segment(directory: Path, chance: random.Random) -> None:
    shutil.rmtree(_segment(directory, chance))


def _lose_a_file_of_a_segment(directory: Path, chance: random.Random) -> None:
    chance.choice(_files(_segment(directory, chance))).unlink()


def _cut_a_file_of_a_segment(directory: Path, chance: random.Random) -> None:
    path = chance.choice(_files(_segment(directory, chance)))
    os.truncate(path, chance.randrange(path.stat().st_size))


def _exchange_segments(directory: Path, chance: random.Random) -> None:
    first, second = segment_of(directory, "papers"), segment_of(directory, "notes")
    name = chance.choice(layout.INDEX_FILES)
    held = (first / name).read_bytes()
    (first / name).write_bytes((second / name).read_bytes())
    (second / name).write_bytes(held)


def _tell(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / layout.DATABASE)) as database, database:
        assert database.execute(statement).rowcount > 0


def _cut_the_queue(directory: Path, chance: random.Random) -> None:
    """Documents whose vectors stand nowhere else yet."""
    newest = f"select seq_id from embeddings_queue order by seq_id desc limit {chance.randint(1, 200)}"
    _tell(directory, f"delete from embeddings_queue where seq_id in ({newest})")


def _cut_the_database(directory: Path, chance: random.Random) -> None:
    path = directory / layout.DATABASE
    os.truncate(path, chance.randrange(path.stat().st_size))


Damage = Callable[[Path, random.Random], None]
ANY: tuple[Damage, ...] = (
    _flip_a_bit,
    _flip_a_bit,
    _lose_a_block,
    _cut_a_file,
    _lose_a_file,
    _lose_a_segment,
    _exchange_segments,
    _cut_the_queue,
)
# What shows in the files themselves: another bit in a vector or a text would only be another vector or text, and a row that is gone from
# the tables a document less, of which nothing but a vector that nobody asks for tells.
STRUCTURE: tuple[Damage, ...] = (
    _lose_a_segment,
    _lose_a_file_of_a_segment,
    _cut_a_file_of_a_segment,
    _exchange_segments,
    _cut_the_queue,
    _cut_the_database,
)


def _level(made: Made, folder: Path, *, rotted: bool) -> str:
    """Where the damage is found: each level is asked only when the one before found nothing.

    Unless it rotted later, the set is taken as one that was made of the damaged directory: with its sums and its counts.
    """
    if rotted and check_artefacts(folder, made.manifest, Progress()):
        return CHECKSUMS
    vectors, record = folder / "vectors", made.record
    try:
        if not rotted:
            record = replace(relist(vectors, record), counts=checking.check(vectors / CONTENT))
        made.keeper.verify(vectors, record)
    except Failed:
        return DECODING
    try:
        return NOT_FOUND if made.keeper.prove(vectors, record) else PROOF
    except Failed:
        return PROOF
    finally:
        shutil.rmtree(made.keeper.scratch / vectors.name)


def _trials(made: Made, tmp_path: Path, damages: tuple[Damage, ...], trials: int, *, rotted: bool) -> tuple[Counter[str], list[str]]:
    chance, levels, missed = random.Random(7), Counter[str](), []
    for trial in range(trials):
        folder = writable(made.folder, tmp_path / f"set-{trial}")
        damage = damages[trial % len(damages)]
        damage(folder / "vectors" / CONTENT, chance)
        level = _level(made, folder, rotted=rotted)
        levels[level] += 1
        missed += [damage.__name__] if level == NOT_FOUND else []
        shutil.rmtree(folder)
    return levels, missed


def _said(levels: Counter[str]) -> str:
    return ", ".join(f"{count} found by {level}" for level, count in sorted(levels.items()))


@pytest.mark.fault("B7")
def test_all_damage_that_a_set_suffered_is_found_by_its_checksums(made: Made, tmp_path: Path, campaign: Campaign) -> None:
    trials = campaign.trials(reduced=24, full=100)
    levels, missed = _trials(made, tmp_path, ANY, trials, rotted=True)
    campaign.found(trials, "damages to the Chroma directory in a set", _said(levels))
    assert missed == []
    assert levels == {CHECKSUMS: trials}
    assert not check_artefacts(made.folder, made.manifest, Progress()), "and the set itself is whole"


@pytest.mark.fault("B7")
def test_all_damage_to_the_structure_that_a_set_was_made_with_is_found_without_its_checksums(
    made: Made, tmp_path: Path, campaign: Campaign
) -> None:
    """The live directory was damaged before the backup, so all checksums agree."""
    trials = campaign.trials(reduced=12, full=100)
    levels, missed = _trials(made, tmp_path, STRUCTURE, trials, rotted=False)
    campaign.found(trials, "damages to the structure of a live Chroma directory, all checksums in order", _said(levels))
    assert missed == []
    whole = writable(made.folder, tmp_path / "whole")
    made.keeper.verify(whole / "vectors", relist(whole / "vectors", made.record))  # control: it is the damage that is found


@pytest.mark.control("B7")
def test_control_chroma_itself_counts_on_over_most_of_this_damage(made: Made, tmp_path: Path) -> None:
    """What an operator would ask: SQLite says ok and every document is counted."""
    damages: tuple[Damage, ...] = (_flip_a_vector, _lose_a_segment, _cut_the_queue)
    for number, damage in enumerate(damages):
        directory = writable(made.folder, tmp_path / f"set-{number}") / "vectors" / CONTENT
        damage(directory, random.Random(number))
        with closing(sqlite3.connect(directory / layout.DATABASE)) as database:
            assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        assert execute(directory, "say(client.get_collection('papers', embedding_function=None).count())") == [made.record.counts["papers"]]


def _flip_a_vector(directory: Path, chance: random.Random) -> None:
    """In the numbers of one vector, not in the links beside it, with which Chroma may crash."""
    segment = segment_of(directory, "papers")
    header = read_header(segment)
    vector = chance.randrange(header.count) * header.element_bytes + header.data_offset
    flip(segment / layout.VECTORS, vector + chance.randrange(header.label_offset - header.data_offset))
