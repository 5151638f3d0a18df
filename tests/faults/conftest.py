"""What several of the faults happen to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.postgresql import Server, start_server
from tests.harness.program import Program


@pytest.fixture(scope="module")
def newest() -> Iterator[Server]:
    with start_server(major=18, settings=["max_prepared_transactions=2", "wal_level=logical"]) as running:
        yield running


@pytest.fixture(scope="module")
def oldest() -> Iterator[Server]:
    """PostgreSQL 15, which has no pgvector here."""
    with start_server(major=15) as running:
        yield running


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program, on a stack of a database and a tree of files."""
    program = Program(tmp_path)
    program.declare_small()
    return program
