"""Record what the host program answers, from real stacks that this script makes: `python -m tests.deploys.record`.

The answers are kept as they were printed; only the place of the stack (/srv/app), the host's name and the interpreter are made neutral.
`tests/deploys/test_recorded.py` makes them anew and compares, so that they cannot age.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from storekeeper.host import locks
from storekeeper.host.stamps import SETTLED_S
from tests.deploys.fake import RECORDED
from tests.harness import chroma
from tests.harness.damage import flip
from tests.harness.program import Ended, Program

HOST = "prod-ai-1"
_PLACE = "/srv/app"


def main() -> None:
    RECORDED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="record-") as root:
        for name, text in answers(Path(root)).items():
            (RECORDED / f"{name}.json").write_text(text, encoding="utf-8")
            print(f"{name}: {json.loads(text)['outcome']}")


def answers(root: Path) -> dict[str, str]:
    """Every recording, made now below a directory: name -> the line that was printed."""
    found: dict[str, str] = {}
    walks = (
        _a_good_stack,
        _a_stack_that_shrinks,
        _a_stack_in_trouble,
        _a_store_that_cannot_be_tried,
        _a_stack_with_rules,
        _a_document_of_a_set,
    )
    for walk in walks:
        place = root / walk.__name__.removeprefix("_")
        place.mkdir()
        program = Program(place)
        program.declare_small()
        walk(program, lambda name, ended, place=place: found.update({name: _neutral(ended, place)}))  # type: ignore[misc]
    return found


Keep = Callable[[str, Ended], None]


def _a_good_stack(program: Program, keep: Keep) -> None:
    keep("list-empty", program.answer("list", "demo"))
    keep("status-empty", program.answer("status"))
    keep("backup", program.answer("backup", "demo"))
    keep("list-unproven", program.answer("list", "demo"))
    keep("prove", program.answer("prove", "demo"))
    keep("list-proven", program.answer("list", "demo"))
    keep("status", program.answer("status"))
    keep("verify", program.answer("verify", "demo", "--all"))
    _delete_rows(program, 30)
    restore = ("restore", "demo", "latest", "--nobody-uses", "papers")  # without root that cannot be seen
    keep("restore-plan", program.answer(*restore, "--plan"))
    keep("restore-elsewhere", program.answer(*restore, "--confirm", "demo@elsewhere"))
    keep("restore", program.answer(*restore, "--confirm", f"demo@{os.uname().nodename}"))
    keep("restore-back-plan", program.answer("restore", "demo", "--back", "--plan", "--nobody-uses", "papers"))
    keep("prune-dry-run", program.answer("prune", "demo", "--dry-run"))
    keep("prune", program.answer("prune", "demo"))
    keep("list-no-stack", program.answer("list", "nosuch"))


def _a_stack_that_shrinks(program: Program, keep: Keep) -> None:
    program.answer("backup", "demo")
    program.answer("prove", "demo")
    _delete_rows(program, 27)
    keep("backup-warning", program.answer("backup", "demo"))
    keep("list-mixed", program.answer("list", "demo"))
    flip(_largest(Path(program.answer("list", "demo").document["result"]["sets"][-1]["path"]) / "main"))
    keep("verify-failed", program.answer("verify", "demo", "--all"))
    keep("list-damaged", program.answer("list", "demo"))
    keep("status-attention", program.answer("status"))


def _a_stack_in_trouble(program: Program, keep: Keep) -> None:
    program.answer("backup", "demo")
    with locks.hold(program.state / "demo" / "lock", "restore"):
        keep("backup-busy", program.answer("backup", "demo"))
    database = program.database().read_bytes()
    program.database().write_bytes(b"no database at all" * 100)
    keep("backup-failed", program.answer("backup", "demo"))
    program.database().write_bytes(database)
    file = program.config / "stacks/demo.yml"
    file.write_text(file.read_text(encoding="utf-8").replace("kind: sqlite", "kind: sqllite") + "bakup: {}\n", encoding="utf-8")
    keep("backup-refused", program.answer("backup", "demo"))
    keep("status-unknown", program.answer("status"))


def _a_store_that_cannot_be_tried(program: Program, keep: Keep) -> None:
    vectors = program.root / "live/demo/vectors"
    vectors.mkdir()
    chroma.execute(vectors, 'load(collection("papers"), 100, 8)')
    program.declare(f"stack: demo\nstores:\n  vectors: {{kind: chroma, path: {vectors}, python: /usr/bin/python3}}\n")
    program.answer("backup", "demo")
    keep("prove-unknown", program.answer("prove", "demo"))


_RULES = """stack: demo
stores:
  main: {{kind: sqlite, path: {live}/main.db}}
  cards: {{kind: sqlite, path: {live}/cards.db}}
  papers: {{kind: files, path: {live}/papers}}
  notes: {{kind: files, path: {live}/notes}}
consistency:
  library:
    authority: {{store: main, query: "select id from documents where id <= 3", columns: [id]}}
    replicas:
      - {{store: cards, rows: [{{table: cards, key: document}}]}}
      - {{store: cards, rows: [{{table: tags, key: document}}]}}
      - {{store: papers, pattern: "{{id}}.txt"}}
  titles:
    authority: {{store: main, query: "select id from documents where id <= 3", columns: [id]}}
    replicas: [{{store: cards, rows: [{{table: cards, key: document}}]}}]
"""


def _a_stack_with_rules(program: Program, keep: Keep) -> None:
    """One rule is looked at, the other never; `notes` is in none of them."""
    live = program.database().parent
    (live / "notes").mkdir()
    (live / "papers/a.txt").rename(live / "papers/3.txt")
    _write_papers(live, 1, 2)
    _execute(live / "cards.db", "create table cards (document integer)", "create table tags (document integer)")
    _execute(live / "cards.db", "insert into cards values (1), (2), (3)", "insert into tags values (1), (2), (3)")
    program.declare(_RULES.format(live=live))
    keep("check", _look(program))
    keep("status-agreement", program.answer("status"))
    _write_papers(live, *range(9, 39))
    (live / "papers/2.txt").unlink()
    keep("check-findings", _look(program))
    keep("check-document", _look(program, "--document", "2"))
    keep("status-findings", program.answer("status"))
    planned = program.answer("repair", "plan", "demo", "--rule", "library", "--at-once")
    keep("repair-plan", planned)
    plan = planned.document["result"]["plan"]["id"]
    keep("repair-refused", program.answer("repair", "apply", "demo", plan, "--yes"))
    keep("repair-apply", program.answer("repair", "apply", "demo", plan, "--yes", "--limit", "100"))
    keep("repair-undo", program.answer("repair", "undo", "demo", plan, "--yes"))
    _execute(live / "cards.db", "delete from cards where document = 1", "drop table tags")
    keep("check-unknown", _look(program))
    keep("status-unread", program.answer("status"))


def _look(program: Program, *words: str) -> Ended:
    """A look at stores that stand still: `unchanged` would name some of them one time, and others the next."""
    time.sleep(SETTLED_S + 0.2)
    return program.answer("check", "demo", "--rule", "library", *words)


_ROWS = """stack: demo
stores:
  main: {{kind: sqlite, path: {live}/main.db}}
  papers: {{kind: files, path: {live}/papers}}
consistency:
  library:
    authority: {{store: main, rows: [{{table: documents, key: id}}]}}
    replicas: [{{store: papers, pattern: "{{id}}.txt"}}]
"""


def _a_document_of_a_set(program: Program, keep: Keep) -> None:
    live = program.database().parent
    program.declare(_ROWS.format(live=live))
    _write_papers(live, *range(1, 41))
    program.answer("backup", "demo")
    _execute(live / "main.db", "delete from documents where id = 2")
    (live / "papers/2.txt").write_text("spoilt", encoding="utf-8")
    one = ("restore", "demo", "latest", "--document", "2")
    keep("restore-document-plan", program.answer(*one, "--plan"))
    keep("restore-document", program.answer(*one, "--confirm", f"demo@{os.uname().nodename}"))
    keep("reset-plan", program.answer("reset", "demo", "--plan", "--nobody-uses", "papers"))


def _write_papers(live: Path, *numbers: int) -> None:
    for number in numbers:
        (live / f"papers/{number}.txt").write_text("a paper", encoding="utf-8")


def _execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def _delete_rows(program: Program, above: int) -> None:
    with closing(sqlite3.connect(program.database())) as database, database:
        database.execute("delete from documents where id > ?", (40 - above,))


def _largest(folder: Path) -> Path:
    return max((each for each in folder.iterdir() if each.is_file()), key=lambda each: each.stat().st_size)


def _neutral(ended: Ended, place: Path) -> str:
    """What was printed, with nothing of this machine in it. The exit code must be the one of the outcome."""
    text = ended.out.replace(str(place), _PLACE).replace(f'"host": "{os.uname().nodename}"', f'"host": "{HOST}"')
    text = text.replace(f"@{os.uname().nodename}", f"@{HOST}").replace(f"-m storekeeper --config {_PLACE}/etc", "")
    text = text.replace(f'"{_mounted(place)}": {{"needed"', '"/": {"needed"')
    for private in (os.uname().nodename, str(Path(sys.prefix)), tempfile.gettempdir() + "/"):
        if private in text:
            raise SystemExit(f"{private} stands in {text}")
    return text


def _mounted(place: Path) -> Path:
    """Where the file system of a directory is mounted."""
    return next(each for each in (place.resolve(), *place.resolve().parents) if each.is_mount())


if __name__ == "__main__":
    main()
