"""A small Maestro, made once and copied for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import maestro
from tests.harness.maestro import Document, Maestro
from tests.harness.program import Program

HEALTHY = [*maestro.documents(30), Document("at-work", state="processing"), Document("waits", "2", "queued")]

WIDE = {"percent": 100, "documents": 100}  # 1% of so few documents is none


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("maestro") / "made"
    Maestro(root).make(HEALTHY)
    return root


@pytest.fixture
def application(made: Path, tmp_path: Path) -> Maestro:
    """30 complete documents and two in flight, in every store."""
    return maestro.copied(made, tmp_path / "maestro")


@pytest.fixture
def program(application: Maestro, tmp_path: Path) -> Program:
    """The program on that application, under the stack file that the project ships."""
    found = Program(tmp_path / "host")
    found.declare(application.stack_file(brake=WIDE), "maestro")
    return found


@pytest.fixture
def declare(program: Program, application: Maestro) -> Callable[..., None]:
    """Declare the rule `documents` otherwise: keys of it."""
    return lambda **consistency: program.declare(application.stack_file(**{"brake": WIDE, **consistency}), "maestro")
