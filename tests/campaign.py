"""Runs the parts of the fault campaign with their full counts, and writes docs/faults.md from what they found: `make faults`.

    python -m tests.campaign [PART ...] [--pytest WORDS]

Without a part all are run, one after the other. What a part found is kept in tests/faults/found; a part that was not run keeps what it
found before, with its date and commit. The page is written when each part has been run once.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.harness import faults_page
from tests.harness.campaign import Found

ROOT = Path(__file__).parents[1]
FOUND, PAGE = ROOT / "tests/faults/found", ROOT / "docs/faults.md"
PARTS: Mapping[str, tuple[str, ...]] = {
    "guards": ("tests/faults/test_guards.py",),
    "pairs": ("tests/faults/test_pairs.py",),
    "servers": ("tests/servers",),
    "consistency": ("tests/consistency",),
    "stores": ("tests/stores", "tests/migrations", "tests/care"),
    "faults": ("tests/faults",),
    "units": ("tests",),
}


def words_of(part: str) -> list[str]:
    """What pytest is told of a part's tests: those of its paths that stand in no part before it."""
    paths = PARTS[part]
    before = [path for name in list(PARTS)[: list(PARTS).index(part)] for path in PARTS[name]]
    return [*paths, *(f"--ignore={path}" for path in before if any(path.startswith(f"{each}/") for each in paths))]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    words.add_argument("--pytest", default="", metavar="WORDS", help="more words for pytest")
    given = words.parse_args()
    if unknown := sorted(set(given.parts) - set(PARTS)):
        words.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    failed = [part for part in PARTS if part in (given.parts or PARTS) and not _run(part, shlex.split(given.pytest))]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or not _write() else 0


def _run(part: str, more: list[str]) -> bool:
    print(f"\n{part}", flush=True)
    FOUND.mkdir(exist_ok=True)
    argv = [sys.executable, "-m", "pytest", *words_of(part), "--full", "-m", "fault or control"]
    ended = subprocess.run([*argv, f"--faults-found={FOUND / f'{part}.json'}", *more], cwd=ROOT, check=False)
    return ended.returncode == 0


def _write() -> bool:
    """Write the page; False where a case is not held."""
    found = {part: Found.read(path) for part in PARTS if (path := FOUND / f"{part}.json").exists()}
    if missing := [part for part in PARTS if part not in found]:
        print(f"never run: {', '.join(missing)}; {PAGE.name} stays as it is")
        return True
    PAGE.write_text(faults_page.render(found), encoding="utf-8")
    unheld = faults_page.not_held(found)
    print(f"{PAGE.name} is written" + (f"; not held: {', '.join(unheld)}" if unheld else "; every case held"))
    return not unheld


if __name__ == "__main__":
    sys.exit(main())
