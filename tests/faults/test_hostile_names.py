"""Hostile words in every field of a stack file and on the command line: nothing they say is ever run, and the field is named.

What may be hostile and still meant, a path of files, is kept, proven and restored like any other.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from storekeeper.cli.main import main
from tests.harness.program import Program

MARK = "MARK"
HOSTILE = {
    "a second command": f"x; touch {MARK}",
    "a substitution": f"$(touch {MARK})",
    "backticks": f"`touch {MARK}`",
    "a newline": f"x\ntouch {MARK}",
    "an option": "-rf",
    "a NUL": f"x\0touch {MARK}",
    "a way upward": "../../x",
    "10 kB": "x" * 10_000,
}
SHELL_ONLY = ("a second command", "a substitution", "backticks", "a newline")  # what a shell would run


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    program = Program(tmp_path / "host")
    program.declare_small()
    monkeypatch.chdir(tmp_path)
    return program


def hostile_stack(word: str) -> dict[str, Any]:
    """A stack in which every field holds the word; a path holds it where a directory's name would stand, if that alone is refused."""
    path = f"/srv/{word}/x" if any(sign in word for sign in "\n\0") or len(word) > 4000 or ".." in word else word
    server = {
        "kind": "postgresql",
        "database": word,
        "user": word,
        "host": word,
        "port": word,
        "programs": path,
        "password": {"file": path},
        "admin": {"user": word, "password": {"env": word}},
    }
    return {
        "stack": "demo",
        "stores": {
            "db": server,
            "main": {"kind": "sqlite", "path": path, "runtime": {"systemd": word}},
            "vectors": {"kind": "chroma", "path": path, "url": word, "python": path},
            "papers": {"kind": "files", "path": path, "include": [f"a/../{word}"], "exclude": [f"/{word}"]},
            word[:1000]: {"kind": "sqlite", "path": "/srv/y.db"},  # YAML itself knows no longer keys
        },
        "services": [{"systemd": word}],
        "ping": word,
        "schedule": [{"verb": "verify", "arguments": [word], "at": word}, {"verb": word, "at": "0 3 * * *"}],
    }


FIELDS = (
    "stores.db.database",
    "stores.db.user",
    "stores.db.host",
    "stores.db.port",
    "stores.db.programs",
    "stores.db.password.file",
    "stores.db.admin.user",
    "stores.db.admin.password.env",
    "stores.main.path",
    "stores.main.runtime.systemd",
    "stores.vectors.path",
    "stores.vectors.url",
    "stores.vectors.python",
    "stores.papers.path",
    "stores.papers.include",
    "stores.papers.exclude",
    "services[0].systemd",
    "ping",
    "schedule[0].arguments[0]",
    "schedule[0].at",
    "schedule[1].verb",
)


@pytest.mark.fault("H10")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_word_in_any_field_of_a_stack_file_is_refused_by_the_name_of_the_field(program: Program, name: str) -> None:
    program.declare(json.dumps(hostile_stack(HOSTILE[name])))
    refused = program.answer("backup", "demo")
    assert (refused.code, refused.document["outcome"], refused.document["result"]) == (2, "refused", None)
    said = [problem["message"] for problem in refused.document["problems"]]
    for field in FIELDS:
        assert any(f": {field}" in message for message in said), f"{field} is not named: {said}"
    assert any(": stores:" in message or ": stores." in message for message in said), "the name of a store is one of them"
    assert all(len(message) < 500 and message.isprintable() for message in said)
    assert not list(program.root.parent.rglob(MARK))
    assert not program.repository.exists()
    assert program.rows() == 40


@pytest.mark.control("H10")
@pytest.mark.parametrize("name", SHELL_ONLY)
def test_control_the_same_words_in_a_shell_do_what_they_say(tmp_path: Path, name: str) -> None:
    subprocess.run(f"ls {HOSTILE[name]}", shell=True, cwd=tmp_path, capture_output=True, check=False)
    assert (tmp_path / MARK).exists()


@pytest.mark.fault("H10")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_word_on_the_command_line_is_refused_and_not_repeated_at_length(
    program: Program, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run("backup", "demo").code == 0
    word = HOSTILE[name]
    commands = [
        *(["--json", verb, word] for verb in ("backup", "list", "verify", "prove", "resume", "prune", "status", "doctor", "jobs")),
        *(["--json", verb, "demo", word] for verb in ("verify", "prove", "pin", "unpin")),
        ["--json", "restore", "demo", word, "--yes"],
        ["--json", "restore", "demo", "latest", "--yes", f"--only={word}"],
        ["--json", "restore", "demo", "latest", "--yes", f"--nobody-uses={word}"],
        ["--json", "restore", "demo", "latest", f"--confirm={word}"],
        ["--json", "verify", "demo", f"--read-subset={word}"],
        ["--json", "query", word],
        ["--json", "query", "demo", word],
        ["--json", "examine", word],
        ["--json", "examine", "demo", f"--store={word}"],
        ["--json", "evict", "demo", word, "4711", "python3", "--yes"],
        ["--json", "evict", "demo", "main", word, "python3", "--yes"],
        ["--json", word, "demo"],
    ]
    for command in commands:
        assert main(["--config", str(program.config), *command]) == 2, command
        out, err = capsys.readouterr()
        document = json.loads(out)
        assert (document["outcome"], document["result"]) == ("refused", None), command
        assert all(len(problem["message"]) < 500 for problem in document["problems"]), command
        assert "Traceback" not in err
    assert not list(program.root.parent.rglob(MARK))
    assert len(program.answer("list", "demo").document["result"]["sets"]) == 1


@pytest.mark.fault("H10")
def test_paths_that_a_shell_would_run_are_kept_proven_and_restored_as_the_paths_they_are(tmp_path: Path) -> None:
    """Spaces, quotes, `$()`, backticks, a dash in front, percent signs: every program gets them as one word."""
    nasty = tmp_path / f"-rf; touch {MARK}; $(touch {MARK}) `touch {MARK}` 'q\" %d & *"
    program = Program(nasty)
    program.declare_small()
    live = nasty / "live/demo"
    (live / "papers" / f"; touch {MARK}\n$(touch {MARK})").write_text("a name of two lines")
    program.declare(json.dumps(_paths_of(live)))
    for words in (["backup", "demo"], ["prove", "demo"], ["verify", "demo", "--all"], ["doctor"], ["status", "--live"]):
        assert program.run(*words).code == 0, words
    before = sorted(path.relative_to(live).as_posix() for path in live.rglob("*"))
    (live / "papers/a.txt").unlink()
    restored = program.run("restore", "demo", "latest", "--yes", "--nobody-uses", "papers")
    assert restored.code == 0, restored.err
    after = sorted(path.relative_to(live).as_posix() for path in live.rglob("*") if ".storekeeper" not in str(path.relative_to(live)))
    assert [name for name in after if not name.startswith(".")] == before
    assert program.rows() == 40
    assert not [path for path in tmp_path.rglob("*") if path.name == MARK]


def _paths_of(live: Path) -> dict[str, Any]:
    return {
        "stack": "demo",
        "stores": {"main": {"kind": "sqlite", "path": f"{live}/main.db"}, "papers": {"kind": "files", "path": f"{live}/papers"}},
    }
