"""Every benchmark, one after the other: `make bench`. Each prints its figures, its ratio and its goal."""

from __future__ import annotations

import sys

from benchmarks import chroma, postgresql, start


def main() -> None:
    for title, benchmark in (("start", start.main), ("PostgreSQL", postgresql.main), ("Chroma", chroma.main)):
        print(f"\n{title}", flush=True)
        sys.argv = [title]
        benchmark()


if __name__ == "__main__":
    main()
