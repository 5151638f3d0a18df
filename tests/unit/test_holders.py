"""Who has files open, found by device and inode; and what cannot be looked at is not `nobody`."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from storekeeper.host import holders as module
from storekeeper.host import processes
from storekeeper.host.holders import family, holders_of
from storekeeper.host.processes import Command, Finished
from storekeeper.outcomes import Unknown

OPEN = "import sys; held = open(sys.argv[1], 'rb')"
OPEN_FOR_WRITING = "import sys; held = open(sys.argv[1], 'ab')"
OPEN_DIRECTORY = "import os, sys; held = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)"
MAP = "import mmap, os, sys; f = os.open(sys.argv[1], os.O_RDONLY); held = mmap.mmap(f, 0, prot=mmap.PROT_READ); os.closerange(3, 64)"
STAND = "import os, sys; os.chdir(sys.argv[1])"
WAIT = "; print('ready', flush=True); sys.stdin.read()"

Start = Callable[..., "subprocess.Popen[str]"]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user's processes are looked at, or not")


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program that does something with a path and then waits; all are ended afterwards."""
    running: list[subprocess.Popen[str]] = []

    def begin(code: str, path: Path, **options: object) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", code + WAIT, str(path)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
        running.append(process)
        assert process.stdout.readline() == "ready\n"
        return process  # type: ignore[no-any-return]

    yield begin
    for process in running:
        process.communicate("", timeout=30)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "data" / "a" / "b").mkdir(parents=True)
    (tmp_path / "data" / "a" / "b" / "file").write_bytes(b"x" * 8192)
    (tmp_path / "elsewhere").write_bytes(b"x" * 8192)
    return tmp_path


@pytest.mark.parametrize("code", [OPEN, OPEN_FOR_WRITING, MAP], ids=["reading", "writing", "mapped and closed"])
def test_a_file_that_somebody_has_open_is_found_with_the_program(tree: Path, start: Start, code: str) -> None:
    file = tree / "data" / "a" / "b" / "file"
    assert holders_of([tree / "data"]) == []
    process = start(code, file)
    for asked in (file, tree / "data" / "a", tree / "data"):
        assert [(holder.pid, holder.path) for holder in holders_of([asked])] == [(process.pid, file)]
    assert "python" in holders_of([file])[0].program


def test_a_mapped_file_is_not_among_the_descriptors(tree: Path, start: Start) -> None:
    """The control: looking at /proc/PID/fd alone does not find it."""
    file = tree / "data" / "a" / "b" / "file"
    process = start(MAP, file)
    descriptors = Path(f"/proc/{process.pid}/fd").iterdir()
    assert str(file) not in {os.readlink(each) for each in descriptors}
    assert [holder.pid for holder in holders_of([file])] == [process.pid]


def test_the_table_of_maps_gives_the_same_where_the_links_may_not_be_followed(
    tree: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tree / "data" / "a" / "b" / "file"
    process = start(MAP, file)
    read_links = module._links

    def refused(directory: str) -> Iterator[tuple[int, int]]:
        if directory.endswith("map_files"):
            raise PermissionError(1, "Operation not permitted", directory)
        return read_links(directory)

    monkeypatch.setattr(module, "_links", refused)
    assert [holder.pid for holder in holders_of([file])] == [process.pid]


def test_another_name_of_the_same_file_is_found(tree: Path, start: Start) -> None:
    """By its name alone this holder would be missed: it opened a hard link outside the tree."""
    os.link(tree / "data" / "a" / "b" / "file", tree / "other-name")
    process = start(OPEN, tree / "other-name")
    assert [holder.pid for holder in holders_of([tree / "data"])] == [process.pid]


def test_a_file_that_was_moved_while_open_is_found_under_its_new_name(tree: Path, start: Start) -> None:
    process = start(OPEN, tree / "data" / "a" / "b" / "file")
    os.rename(tree / "data", tree / "moved")
    assert [(holder.pid, holder.path) for holder in holders_of([tree / "moved"])] == [(process.pid, tree / "moved" / "a" / "b" / "file")]


def test_an_open_directory_is_found_but_a_working_directory_is_not(tree: Path, start: Start) -> None:
    start(STAND, tree / "data" / "a")
    assert holders_of([tree / "data"]) == []
    process = start(OPEN_DIRECTORY, tree / "data" / "a")
    assert [(holder.pid, holder.path) for holder in holders_of([tree / "data"])] == [(process.pid, tree / "data" / "a")]


def test_neighbours_and_what_links_lead_to_do_not_count(tree: Path, start: Start) -> None:
    (tree / "data" / "link").symlink_to(tree / "elsewhere")
    (tree / "data2").mkdir()
    (tree / "data2" / "file").write_bytes(b"x")
    start(OPEN, tree / "elsewhere")
    start(OPEN, tree / "data2" / "file")
    assert holders_of([tree / "data"]) == []


def test_a_path_given_as_a_link_is_followed(tree: Path, start: Start) -> None:
    (tree / "link").symlink_to(tree / "data")
    process = start(OPEN, tree / "data" / "a" / "b" / "file")
    assert [holder.pid for holder in holders_of([tree / "link"])] == [process.pid]


def test_names_that_no_program_would_choose_are_found(tree: Path, start: Start) -> None:
    file = tree / "data" / "a\n(deleted) b"
    file.write_bytes(b"x")
    process = start(OPEN, file)
    assert [(holder.pid, holder.path) for holder in holders_of([tree / "data"])] == [(process.pid, file)]


def test_what_is_not_there_is_held_by_nobody(tree: Path) -> None:
    assert holders_of([tree / "gone"]) == []


def test_the_processes_that_are_named_do_not_count(tree: Path, start: Start) -> None:
    file = tree / "data" / "a" / "b" / "file"
    first, second = start(OPEN, file), start(OPEN, file)
    assert {holder.pid for holder in holders_of([tree / "data"])} == {first.pid, second.pid}
    assert {holder.pid for holder in holders_of([tree / "data"], except_pids={first.pid})} == {second.pid}


def test_the_family_is_this_process_and_its_descendants(tree: Path, start: Start) -> None:
    process = start(OPEN, tree / "elsewhere")
    assert {os.getpid(), process.pid} <= family()
    assert os.getppid() not in family()


def test_this_process_counts_unless_it_is_named(tree: Path) -> None:
    with open(tree / "elsewhere", "rb"):
        assert [holder.pid for holder in holders_of([tree / "elsewhere"])] == [os.getpid()]


def test_looking_does_not_drop_a_lock_of_this_process(tree: Path) -> None:
    """Opening and closing a SQLite file in the process that has it locked would let other writers in; the control shows it."""
    file = tree / "data" / "main.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table t (x)")
    connection.close()
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("begin immediate")
    holders_of([tree / "data"])
    assert not another_can_write(file)
    with open(file, "rb"):
        pass
    assert another_can_write(file)
    holder.close()


def another_can_write(file: Path) -> bool:
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('begin immediate')"
    return subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, check=False).returncode == 0


@pytest.fixture
def open_tree(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tree that every user of the machine can reach, and an interpreter that every user can run."""
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        file = Path(directory) / "data" / "a" / "file"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * 8192)
        for each in (file, file.parent, file.parent.parent):
            os.chown(each, 65534, 65534)
        yield Path(directory)


@AS_ROOT
@pytest.mark.parametrize("code", [OPEN, OPEN_FOR_WRITING, MAP], ids=["reading", "writing", "mapped and closed"])
def test_a_holder_that_cannot_be_looked_at_is_not_nobody(open_tree: Path, start: Start, code: str) -> None:
    """As nobody, with a process of root that holds the file: /proc does not say so, the lease does."""
    process = start(code, open_tree / "data" / "a" / "file")
    assert [holder.pid for holder in holders_of([open_tree / "data"])] == [process.pid]
    with (
        as_nobody(),
        pytest.raises(Unknown, match=r"data/a/file is open in a process that cannot be looked at: the open files of pid [0-9, ]+"),
    ):
        holders_of([open_tree / "data"])


@AS_ROOT
def test_files_that_nobody_has_open_are_free_although_some_processes_are_hidden(open_tree: Path) -> None:
    with as_nobody():
        assert holders_of([open_tree / "data"]) == []


@AS_ROOT
@pytest.mark.parametrize("kept", [0, 20], ids=["nothing", "half a path"])
def test_paths_that_did_not_reach_the_program_that_asks_for_leases_are_not_free(
    open_tree: Path, start: Start, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Root holds the file, and what was to be asked is cut off on its way: without the count that was an answer of nobody."""
    start(OPEN, open_tree / "data" / "a" / "file")
    run = processes.run

    def cut_off(command: Command, *, stdin: IO[bytes]) -> Finished:
        os.ftruncate(stdin.fileno(), kept)
        return run(command, stdin=stdin)

    monkeypatch.setattr(processes, "run", cut_off)
    with as_nobody(), pytest.raises(Unknown, match="the leases were not understood"):
        holders_of([open_tree / "data"])


@AS_ROOT
def test_without_a_lease_a_hidden_process_makes_the_answer_unknown(open_tree: Path) -> None:
    """Nobody may not take a lease on a file of root."""
    os.chown(open_tree / "data" / "a" / "file", 0, 0)
    with as_nobody(), pytest.raises(Unknown, match=r"cannot be seen: the open files of pid .*, and .*/file: no lease can be had"):
        holders_of([open_tree / "data"])


@AS_ROOT
def test_who_is_seen_is_said_although_others_are_hidden(open_tree: Path) -> None:
    words = ["sh", "-c", 'exec 3<"$0"; echo ready; read x', str(open_tree / "data" / "a" / "file")]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=65534, group=65534, extra_groups=[]
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with as_nobody():
            assert [(holder.pid, holder.program) for holder in holders_of([open_tree / "data"])] == [(process.pid, "sh")]
        process.communicate("\n")


@AS_ROOT
@pytest.mark.parametrize("part", ["data", "data/a"])
def test_a_part_of_the_tree_that_cannot_be_read_makes_the_answer_unknown(open_tree: Path, part: str) -> None:
    (open_tree / part).chmod(0o700)
    os.chown(open_tree / part, 0, 0)
    with as_nobody(), pytest.raises(Unknown, match="Permission denied"):
        holders_of([open_tree / "data"])


class as_nobody:  # noqa: N801 reads as a word in `with`
    """The effective user is nobody while the block runs."""

    def __enter__(self) -> None:
        os.setegid(65534)
        os.seteuid(65534)

    def __exit__(self, *error: object) -> None:
        os.seteuid(0)
        os.setegid(0)
