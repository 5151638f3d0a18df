"""Runs the parts, keeps what each found in benchmarks/results, and writes docs/benchmarks.md from that: `make bench`.

    python -m benchmarks.all [PART ...] [--rounds N] [--page-only]

Without a part all are run. What was not run keeps its rows, with their date.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import time
from datetime import UTC, datetime

from benchmarks import page
from benchmarks.machine import machine, versions

PARTS = ("start", "postgresql", "chroma", "mixed", "scale", "load", "repository", "memory", "consistency", "servers")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    words.add_argument("--rounds", type=int, help="of each comparison, instead of each part's own number")
    words.add_argument("--page-only", action="store_true", help="only write the page anew")
    given = words.parse_args()
    if unknown := sorted(set(given.parts) - set(PARTS)):
        words.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    for part in () if given.page_only else given.parts or PARTS:
        _run(part, given.rounds)
    page.write(PARTS)


def _run(part: str, rounds: int | None) -> None:
    module = importlib.import_module(f"benchmarks.{part}")
    title = getattr(module, "TITLE", part.capitalize())
    print(f"\n{title}", flush=True)
    on, began = machine(), time.monotonic()
    given = {"rounds": rounds} if rounds is not None and "rounds" in inspect.signature(module.measure).parameters else {}
    found = module.measure(**given)
    module.show(found)
    about = {"part": part, "title": title, "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
    about |= {"seconds": round(time.monotonic() - began), "machine": on, "versions": versions()}
    page.RESULTS.mkdir(exist_ok=True)
    (page.RESULTS / f"{part}.json").write_text(json.dumps({**about, **found}, indent=1) + "\n", encoding="utf-8")
    page.write(PARTS)


if __name__ == "__main__":
    main()
