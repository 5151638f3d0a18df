"""Take the picture of the report that the README shows: `python -m tests.deploys.picture`. Needs faketime and chromium.

A real stack of an application lives through nine nights, told to the host program by faketime; the report is the one of deploys/status.py.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from tests.harness.program import CHECKOUT, Program

_NIGHTS = 8
_PROVEN = (0, 3, 6)
_STACK = """stack: maestro
stores:
  main: {{kind: sqlite, path: {live}/main.db}}
  chats: {{kind: sqlite, path: {live}/chats.db}}
  papers: {{kind: files, path: {live}/papers}}
backup: {{keep: {{days: 30}}}}
schedule: {{backup: "0 3 * * *", prove: "30 4 * * 0"}}
"""
_INVENTORY = """hosts = [("@local", {{
    "storekeeper_program": "{program}", "storekeeper_config": "{root}/etc",
    "storekeeper_stacks": {{"maestro": "{root}/etc/stacks/maestro.yml"}},
}})]
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="picture-") as made:
        root = Path(made)
        program = Program(root)
        program.declare(_STACK.format(live=root), "maestro")
        for night in range(_NIGHTS):
            _grow(root, night)
            _at_night(program, _NIGHTS - night, "backup")
            if night in _PROVEN:
                _at_night(program, _NIGHTS - night, "prove")
        (root / "inventory.py").write_text(_INVENTORY.format(program=f"{sys.prefix}/bin/storekeeper", root=root), encoding="utf-8")
        pyinfra = [f"{sys.prefix}/bin/pyinfra", "-y", f"{root}/inventory.py", "deploys/status.py", "--data", f"report={root}/report.html"]
        subprocess.run(pyinfra, cwd=CHECKOUT, check=True, capture_output=True)
        page = root / "report.html"
        page.write_text(page.read_text(encoding="utf-8").replace("@local", "prod-ai-1").replace(f"{os.uname().nodename}, ", ""))
        _photograph(page, Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "docs/report.png")


def _grow(root: Path, night: int) -> None:
    """What the application does in a day."""
    chance = random.Random(night)
    (root / "papers").mkdir(exist_ok=True)
    count = chance.randrange(20, 60)
    for number in range(count):
        (root / f"papers/paper-{night}-{number}.pdf").write_bytes(chance.randbytes(90_000))
    with closing(sqlite3.connect(root / "main.db")) as database, database:
        database.execute("create table if not exists documents (id text primary key, title text)")
        database.executemany("insert into documents values (?, ?)", [(f"{night}-{number}", "a title " * 20) for number in range(count)])
    with closing(sqlite3.connect(root / "chats.db")) as database, database:
        database.execute("create table if not exists messages (id integer primary key, said text)")
        database.executemany("insert into messages (said) values (?)", [("a question and its answer " * 40,)] * count * 8)


def _at_night(program: Program, ago: int, verb: str) -> None:
    """Run a verb as it was so many nights ago, at three."""
    words = ["faketime", "-f", f"-{ago * 24 - 20}h", *program.argv("--quiet", verb, "maestro")]
    subprocess.run(words, check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL, env={**os.environ, "NO_FAKE_STAT": "1"})


def _photograph(page: Path, picture: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("chromium is missing: apt-get install chromium")
    size = os.environ.get("PICTURE_SIZE", "880,1080")
    words = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={size}",
        f"--screenshot={picture}",
    ]
    words += ["--blink-settings=preferredColorScheme=1"] if "DARK" not in os.environ else ["--blink-settings=preferredColorScheme=0"]
    subprocess.run([*words, page.as_uri()], check=True, capture_output=True)
    shutil.copy(page, picture.with_suffix(".html")) if "KEEP" in os.environ else None
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB, report {page.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
