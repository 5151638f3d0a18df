"""What several of the faults happen to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.postgresql import Server, start_server
from tests.harness.stacks import Lab, make_lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A stack of a database and a tree of files."""
    made = make_lab(tmp_path, sqlites=1, services=0)
    made.write("one")
    yield made
    made.close()


@pytest.fixture(scope="module")
def newest() -> Iterator[Server]:
    with start_server(major=18, settings=["max_prepared_transactions=2", "wal_level=logical"]) as running:
        yield running


@pytest.fixture(scope="module")
def oldest() -> Iterator[Server]:
    """PostgreSQL 15, which has no pgvector here."""
    with start_server(major=15) as running:
        yield running
