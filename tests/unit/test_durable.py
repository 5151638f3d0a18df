"""Files and directories that are whole or not there, private whatever the umask, and durable in the right order."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from storekeeper.host import durable


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order in which names appear and are made durable, as the kernel is asked for it."""
    seen: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append(f"fsync {kind} {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def note_rename(source: Path, destination: Path) -> None:
        seen.append(f"rename to {Path(destination).name}")
        rename(source, destination)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    return seen


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.fault("J2")
def test_a_file_is_on_disk_before_its_name_and_its_name_before_we_go_on(tmp_path: Path, calls: list[str]):
    durable.write_file(tmp_path / "f", b"new")
    assert calls == [f"fsync file .f.{os.getpid()}.new", "rename to f", f"fsync directory {tmp_path.name}"]


@pytest.mark.fault("J2")
def test_a_renamed_directory_is_durable_on_both_sides(tmp_path: Path, calls: list[str]):
    for name in ("a", "b", "a/set"):
        (tmp_path / name).mkdir()
    durable.rename(tmp_path / "a" / "set", tmp_path / "b" / "set")
    assert calls == ["rename to set", "fsync directory b", "fsync directory a"]


@pytest.mark.fault("J2")
def test_a_made_directory_is_durable_in_its_parent(tmp_path: Path, calls: list[str]):
    durable.make_directory(tmp_path / "d")
    assert calls == [f"fsync directory {tmp_path.name}"]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, mask: int):
    with durable.umask(mask):
        durable.make_directory(tmp_path / "d")
        durable.write_file(tmp_path / "f", b"x")
        durable.write_file(tmp_path / "sealed", b"x", durable.SEALED_FILE)
    assert (mode(tmp_path / "d"), mode(tmp_path / "f"), mode(tmp_path / "sealed")) == (0o700, 0o600, 0o400)


def test_the_umask_is_put_back(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), durable.umask(0o777):
        raise ZeroDivisionError
    (tmp_path / "f").write_text("")
    assert mode(tmp_path / "f") != 0


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    durable.write_file(tmp_path / "f", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            durable.write_file(tmp_path / "f", b"new")
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"
    durable.write_file(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new", "the control"


def test_a_reader_never_sees_a_part(tmp_path: Path):
    """An open reader keeps the old file whole; one that writes in place (the control) tears it."""
    path, old, new = tmp_path / "f", b"old" * 1000, b"new" * 10
    durable.write_file(path, old)
    with open(path, "rb") as reader:
        durable.write_file(path, new)
        assert reader.read() == old
    durable.write_file(path, old)
    with open(path, "rb") as reader:
        path.chmod(0o600)
        path.write_bytes(new)
        assert reader.read() != old


@pytest.mark.fault("H11")
def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".f.{os.getpid()}.new").symlink_to(victim)
    durable.write_file(tmp_path / "f", b"x")
    assert victim.read_text() == "precious"
    assert (tmp_path / "f").read_bytes() == b"x"
    assert not (tmp_path / "f").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["f", "victim"]


@pytest.mark.fault("H11")
def test_a_file_that_somebody_else_has_open_in_the_place_of_the_temporary_one_is_not_written_to(tmp_path: Path):
    """Its owner could read what is written, and change it afterwards."""
    trap = tmp_path / f".f.{os.getpid()}.new"
    with open(trap, "w+b") as opened:
        trap.chmod(0o666)
        durable.write_file(tmp_path / "f", b"secret")
        assert opened.read() == b""
        assert mode(tmp_path / "f") == 0o600


@pytest.mark.control("H11")
def test_control_an_ordinary_open_writes_to_whom_the_name_belongs(tmp_path: Path):
    victim, link, trap = tmp_path / "victim", tmp_path / "link", tmp_path / "trap"
    victim.write_text("precious")
    link.symlink_to(victim)
    link.write_bytes(b"x")
    assert victim.read_bytes() == b"x"
    with open(trap, "w+b") as opened:
        trap.write_bytes(b"secret")
        assert opened.read() == b"secret"


def test_json_is_for_people_and_programs(tmp_path: Path):
    durable.write_json(tmp_path / "f", {"b": 1, "a": [True, None]})
    text = (tmp_path / "f").read_text()
    assert json.loads(text) == {"a": [True, None], "b": 1}
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


def test_a_rename_never_replaces(tmp_path: Path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").symlink_to("nothing")
    with pytest.raises(FileExistsError):
        durable.rename(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_text() == "a"
    os.rename(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").is_symlink(), "the control: the plain call replaces without a word"


def test_a_directory_that_exists_is_left_as_it_is(tmp_path: Path):
    (tmp_path / "d").mkdir(mode=0o755)
    (tmp_path / "d").chmod(0o755)
    durable.ensure_directory(tmp_path / "d" / "e" / "f")
    assert (mode(tmp_path / "d"), mode(tmp_path / "d" / "e"), mode(tmp_path / "d" / "e" / "f")) == (0o755, 0o700, 0o700)
    with pytest.raises(FileExistsError):
        durable.make_directory(tmp_path / "d")
    (tmp_path / "file").write_text("")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        durable.ensure_directory(tmp_path / "file" / "d")


def test_two_names_are_exchanged_in_one_step(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "inside").write_text("a")
    (tmp_path / "b").write_text("b")
    durable.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_text() == "b"
    assert (tmp_path / "b" / "inside").read_text() == "a"


def test_an_exchange_that_cannot_be_done_changes_nothing(tmp_path: Path):
    (tmp_path / "a").write_text("a")
    with pytest.raises(FileNotFoundError) as missing:
        durable.exchange(tmp_path / "a", tmp_path / "b")
    assert missing.value.errno == errno.ENOENT
    with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
        durable.exchange(tmp_path / "a", Path("/proc/self/status"))
    assert (tmp_path / "a").read_text() == "a"


def test_a_tree_is_removed_whatever_its_modes_and_its_links_are_not_followed(tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("x")
    tree = tmp_path / "tree"
    (tree / "closed" / "in").mkdir(parents=True)
    (tree / "closed" / "in" / "f").write_text("x")
    (tree / "link").symlink_to(tmp_path / "outside")
    os.chmod(tree / "closed" / "in", 0o000)
    os.chmod(tree / "closed", 0o500)
    durable.remove_tree(tree)
    assert not tree.exists()
    assert (tmp_path / "outside" / "precious").read_text() == "x"
    durable.remove_tree(tree)


REMOVE_AS_NOBODY = """
import os, shutil, sys
from pathlib import Path
from storekeeper.host import durable

os.setgroups([]); os.setgid(65534); os.setuid(65534)
tree = Path(sys.argv[1]) / "tree"
(tree / "in").mkdir(parents=True)
(tree / "in" / "f").write_text("x")
os.chmod(tree / "in", 0o500)
os.chmod(tree, 0o500)
try:
    shutil.rmtree(tree)
except PermissionError:
    print("refused")
durable.remove_tree(tree)
print(tree.exists())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_tree_of_closed_directories_is_removed_by_their_owner_without_privileges():
    """Root may remove anything; an owner must first open the directories, as the control in the program shows."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chown(folder, 65534, 65534)
        argv = [sys.executable, "-c", REMOVE_AS_NOBODY, folder]
        done = subprocess.run(argv, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["refused", "False"], done.stderr


def test_a_tree_that_is_deeper_than_python_counts_calls_is_removed(tmp_path: Path):
    """Before Python 3.13 shutil.rmtree calls itself once a level: a set with such a tree could be made and never be removed again.

    It is the control there.
    """
    top = tmp_path / "top"
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for name in ("top", *("d" * (sys.getrecursionlimit() + 200))):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    if sys.version_info < (3, 13):
        with pytest.raises((RecursionError, OSError)):
            shutil.rmtree(top)
    durable.remove_tree(top)
    assert not top.exists()
