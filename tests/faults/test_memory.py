"""The memory that each verb needs stays the same while the data grows ten times: the program itself, run as people run it.

A store that is read whole into memory is safe until it is larger than the host, and then nothing of it is kept any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storekeeper.stores.chroma import index, layout
from tests.harness.campaign import Campaign
from tests.harness.chroma import execute
from tests.harness.memory import LOCKS, VERBS, Kind, Peak, kinds, peaks, temporary
from tests.harness.postgresql import Server, start_server

MOST_MB = 150.0  # whatever the kind and the verb
GROWTH_MB, GROWTH = 24.0, 0.55  # where the data is ten times as large; both hold. Buffers are no larger than the files that they read
# Chroma's own library reads a scratch copy in a process of its own, which holds the index, and a scratch server has buffers.
PROOF_MB = 450.0
KINDS = ("sqlite-rows", "postgresql-rows", "postgresql-tables", "chroma", "files")
SHAPES = ("files-large", "sqlite-log", "sqlite-tables", "files-flat")  # of the same kinds: the first in every run, all in the campaign


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(settings=LOCKS) as running:
        yield running


@pytest.fixture
def root() -> Iterator[Path]:
    with temporary() as made:
        yield made


def grown(kind: Kind, root: Path, count: int) -> dict[str, tuple[Peak, Peak]]:
    """The peak of each verb, with so many and with ten times as many."""
    few, many = peaks(root / "few", kind, count), peaks(root / "many", kind, 10 * count)
    return {verb: (few[verb], many[verb]) for verb in VERBS}


@pytest.mark.parametrize("name", KINDS)
def test_ten_times_the_data_takes_no_more_memory(name: str, server: Server, root: Path, campaign: Campaign) -> None:
    refuse_growth(kinds(server)[name], root, campaign)


def test_whatever_shape_the_data_has(server: Server, root: Path, campaign: Campaign) -> None:
    for name in SHAPES[: campaign.trials(1, len(SHAPES))]:
        (root / name).mkdir(mode=0o755)
        refuse_growth(kinds(server)[name], root / name, campaign)


def refuse_growth(kind: Kind, root: Path, campaign: Campaign) -> None:
    found = grown(kind, root, campaign.trials(kind.small, kind.large))
    for verb, (few, many) in found.items():
        assert many.own < min(few.own + GROWTH_MB, few.own * (1 + GROWTH)), f"{verb}: {few.own} MB, then {many.own} MB"
        assert many.own < MOST_MB, verb
        assert many.largest < (PROOF_MB if verb == "prove" else MOST_MB), f"{verb}: a program that it started took {many.largest} MB"


def test_control_rows_that_are_gathered_before_they_are_hashed_take_ten_times_the_memory(server: Server, root: Path) -> None:
    kind = kinds(server)["sqlite-rows"]
    gather = "import storekeeper.stores.rows\nstorekeeper.stores.rows._ROWS = 1 << 30"
    few, many = (peaks(root / str(count), kind, count, ["backup"], gather)["backup"] for count in (2 * kind.small, 20 * kind.small))
    assert many.own > few.own + GROWTH_MB
    assert many.own > few.own * (1 + GROWTH)


def test_a_damaged_number_of_a_vector_makes_no_table_of_that_size(tmp_path: Path) -> None:
    """The control is the limit of 32 bits that stood there: a table of three thousand million numbers."""
    execute(tmp_path / "vectors", 'load(collection("papers"), 1200, 8)')
    (segment,) = (path.parent for path in tmp_path.rglob(layout.VECTORS))
    header = index.read_header(segment)
    with open(segment / layout.VECTORS, "r+b") as file:
        file.seek(3 * header.element_bytes + header.label_offset)
        file.write((3_000_000_000).to_bytes(8, "little"))
    with pytest.raises(index.Damaged, match="makes no sense at vector 3"):
        index.Vectors(segment)
