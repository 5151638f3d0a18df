"""Copies of the checkout in which one guard is switched off, and what the tests say of them.

A copy is the tree as git lists it. Tests run in it with this interpreter, and `storekeeper` is the copy's, in children too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path

from tests.harness import verdicts
from tests.harness.descendants import Kept

CHECKOUT = Path(__file__).parents[2]
_SHOWN = 100  # characters of a change
_TEST_SECONDS = 120  # one test of a copy that takes longer is stuck, which proves nothing


@dataclass(frozen=True)
class Guard:
    """One guard of the product: what it protects, how it is switched off (`old` becomes `new` in `file`), and which tests must notice.

    `cases` are those of the catalogue whose damage it keeps away; of `tests` the first is the fastest. `always`: switched off in every
    run of the tests, not only in the campaign.
    """

    name: str
    protects: str
    cases: tuple[str, ...]
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    always: bool = False
    how: str = ""

    @property
    def change(self) -> str:
        """What is switched off, as code: the lines that differ, and where; `how` where lines would not tell."""
        if self.how:
            return f"{self.how} ({self.file})"
        old, new = self.old.splitlines(), self.new.splitlines()
        same = _alike(old, new)
        end = _alike(old[same:][::-1], new[same:][::-1])
        removed, added = (_spoken(lines[same : len(lines) - end]) for lines in (old, new))
        return f"{f'{removed} → {added}' if removed and added else f'without {removed}' if removed else f'with {added}'} ({self.file})"


@dataclass(frozen=True)
class Verdict:
    """How one test ended: see `verdicts`."""

    test: str
    outcome: str
    words: str


class Workshop:
    """Makes the copies, one below the other in `folder`, and runs tests in them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.plain = folder / "plain"
        copy_checkout(self.plain)

    def without(self, guard: Guard) -> Path:
        """A copy without this guard. Raises AssertionError unless its text stands there exactly once."""
        copy = self._folder / "mutant"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.plain, copy, symlinks=True)
        path = copy / guard.file
        path.write_text(replaced(path.read_text(encoding="utf-8"), guard), encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()  # it is told from its source by size and second alone
        return copy

    def run(self, copy: Path, tests: Sequence[str]) -> list[Verdict]:
        """Run these tests in a copy, all of them, each of which may be several by its parameters."""
        told = self._folder / "verdicts.jsonl"
        told.unlink(missing_ok=True)
        environment = _environment(copy, told)
        _refuse_another_storekeeper(copy, environment)
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", verdicts.__name__]
        words += [f"--basetemp={self._folder / 't'}", f"--timeout={_TEST_SECONDS}", *tests]
        printed = self._folder / "printed"
        Kept(partial(_printing_to, printed, words, copy, environment)).end()  # a copy without its guard may leave programs behind
        found = [Verdict(*json.loads(line)) for line in told.read_text(encoding="utf-8").splitlines()] if told.exists() else []
        assert found, f"no test ran: {printed.read_text(errors='replace')[-4000:]}"
        return found


def _printing_to(printed: Path, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    with open(printed, "wb") as out:
        subprocess.run(words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)


def replaced(source: str, guard: Guard) -> str:
    count = source.count(guard.old)
    assert count == 1, f"{guard.name}: its text stands {count} times in {guard.file}; it moved, and tests/faults/guards must follow"
    return source.replace(guard.old, guard.new)


def copy_checkout(target: Path) -> None:
    """The files that git knows or would take, as they are now."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0")[:-1]:
        source, copy = CHECKOUT / name, target / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


def names_of(verdicts_found: Iterable[Verdict], outcome: str) -> list[str]:
    """The tests that ended so, each once whatever its parameters, without its path."""
    names = (each.test.rpartition("::")[2].partition("[")[0] for each in verdicts_found if each.outcome == outcome)
    return list(dict.fromkeys(names))


def _alike(first: Sequence[str], second: Sequence[str]) -> int:
    """How many lines at the beginning are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _spoken(lines: Sequence[str]) -> str:
    words = " ".join(line.strip() for line in lines)
    return f"`{words if len(words) <= _SHOWN else words[:_SHOWN] + ' …'}`" if words else ""


def _environment(copy: Path, told: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_") and name != "CI"}
    return {**kept, "PYTHONPATH": str(copy), verdicts.FILE: str(told)}


def _refuse_another_storekeeper(copy: Path, environment: dict[str, str]) -> None:
    """The checkout is installed as it stands, so without this a copy could be judged by tests of the original."""
    words = [sys.executable, "-c", "import storekeeper; print(storekeeper.__file__)"]
    found = subprocess.run(words, cwd="/", env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert found == str(copy / "storekeeper" / "__init__.py"), found
