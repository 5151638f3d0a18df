"""`make demo`, whole, interrupted, and again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The demo in a place that the server's user can reach."""
    for parent in (tmp_path, *tmp_path.parents):
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode & 0o7777 | 0o055)
    return {**os.environ, "STOREKEEPER_DEMO": str(tmp_path / "demo")}


def _begin(environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "demo"], cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _left_running(place: str) -> list[str]:
    """Processes that still speak of the demo's directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if place in words:
                found.append(words)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)  # the whole main job, and a part of it
def test_the_demo_keeps_proves_breaks_catches_and_puts_back_and_begins_again(environment: Mapping[str, str]) -> None:
    place = environment["STOREKEEPER_DEMO"]
    demo = _begin(environment)
    said, _ = demo.communicate(timeout=400)
    assert demo.returncode == 0, said
    steps = [line.split()[0] for line in said.splitlines() if line.startswith("  ")]
    assert steps == [
        *("server", "application", "site", "backup", "prove", "break", "verify", "break", "restore"),
        *("break", "check", "table", "plan", "repair", "undo", "document", "report"),
    ]
    report = (Path(place) / "report.html").read_text(encoding="utf-8")
    assert "Do the stores agree" in report
    table = (Path(place) / "disagreement.html").read_text(encoding="utf-8")
    assert [word in table for word in ("orphan", "missing")] == [True, True]
    assert table != report
    assert "450 rows, 450 chats, 1800 chunks, 450 papers left" in said
    assert "all stores on one side: 500 rows, 500 chats, 2000 chunks, 500 papers" in said
    assert not _left_running(place)

    again = _begin(environment)
    before = _until(again, "prove", environment)
    assert re.search(r"^  backup +\w+-000001: ", before, re.MULTILINE), f"nothing is left of the first: {before}"
    _interrupt(again, environment)


@pytest.mark.slow
def test_an_interrupted_demo_leaves_nothing_running(environment: Mapping[str, str]) -> None:
    demo = _begin(environment)
    _until(demo, "application", environment)
    _interrupt(demo, environment)


def _until(demo: subprocess.Popen[str], step: str, environment: Mapping[str, str]) -> str:
    """What it says until it says this of a step."""
    said = ""
    assert demo.stdout is not None
    while (line := demo.stdout.readline()) and not line.startswith(f"  {step}"):
        said += line
    assert _left_running(environment["STOREKEEPER_DEMO"]), f"the server runs, so there is something to leave behind: {said}"
    return said


def _interrupt(demo: subprocess.Popen[str], environment: Mapping[str, str]) -> None:
    demo.send_signal(signal.SIGTERM)
    said, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1, said
    assert "interrupted" in said
    deadline = time.monotonic() + 20
    while _left_running(environment["STOREKEEPER_DEMO"]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _left_running(environment["STOREKEEPER_DEMO"])
