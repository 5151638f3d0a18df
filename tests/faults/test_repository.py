"""A repository that is not what it seems, a publish that is cut short, and names and links that lead elsewhere."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from storekeeper.host import durable
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Refused
from storekeeper.sets import entry as entry_module
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.names import format_id
from storekeeper.sets.repository import Repository, StackSets
from tests.harness.campaign import Campaign
from tests.harness.sets import START, fill, open_sets, publish, publish_daily, tampered

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another owner, a mount, another user")
PROGRAM = Path(__file__).parents[2]


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextmanager
def mounted(where: Path, *options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", where], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every user can go to: pytest's own is closed to others."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


# A24


@AS_ROOT
@pytest.mark.fault("A24")
@pytest.mark.control("A24")
def test_an_unmounted_repository_is_refused_and_the_root_disk_stays_empty(tmp_path: Path, source: Path):
    disk, state = tmp_path / "disk", tmp_path / "state"
    disk.mkdir(mode=0o700)
    with mounted(disk, "-o", "mode=0700"):
        publish(Repository.open_or_create(disk, state).stack("demo"), source)
    for opened in (Repository.open, Repository.open_or_create):
        with pytest.raises(Refused, match=r"holds no repository, .* is the disk mounted\? Nothing was written"):
            opened(disk, state)
    assert everything(disk) == set()
    (state / "repository-id").unlink()
    Repository.open_or_create(disk, state)
    assert everything(disk) == {".storekeeper"}, "the control: without what the state remembers, the root disk would fill"


@pytest.mark.fault("A24")
def test_a_repository_that_is_gone_is_not_made_anew(tmp_path: Path, source: Path):
    publish(open_sets(tmp_path), source)
    shutil.rmtree(tmp_path / "repository")
    with pytest.raises(Refused, match="is the disk mounted"):
        open_sets(tmp_path)
    assert not (tmp_path / "repository").exists()


@pytest.mark.fault("A24")
def test_another_disk_in_its_place_is_refused_with_both_ids(tmp_path: Path):
    mine = Repository.create(tmp_path / "a", tmp_path / "state")
    other = Repository.create(tmp_path / "b", tmp_path / "elsewhere")
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    with pytest.raises(Refused, match=f"is repository {other.id}, this host keeps its sets in {mine.id}"):
        Repository.open_or_create(tmp_path / "a", tmp_path / "state")


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"[]", b'{"id": ""}', b'{"id": 7}', b"\xff", b"x" * 10_000])
def test_a_marker_that_cannot_be_read_is_neither_believed_nor_replaced(tmp_path: Path, rubbish: bytes):
    Repository.create(tmp_path / "r", tmp_path / "s")
    (tmp_path / "r" / ".storekeeper").write_bytes(rubbish)
    with pytest.raises(Refused, match="cannot be read as a repository's marker"):
        Repository.open_or_create(tmp_path / "r", tmp_path / "s")
    assert (tmp_path / "r" / ".storekeeper").read_bytes() == rubbish


@pytest.mark.parametrize("rubbish", [b"", b"\n", b"\xff\xfe"])
def test_a_state_that_cannot_be_read_is_not_taken_for_no_state(tmp_path: Path, rubbish: bytes):
    Repository.create(tmp_path / "r", tmp_path / "s")
    (tmp_path / "s" / "repository-id").write_bytes(rubbish)
    with pytest.raises(Refused, match="repository-id"):
        Repository.open_or_create(tmp_path / "r", tmp_path / "s")


# A25


def refused(path: Path, state: Path) -> str:
    messages = set()
    for opened in (Repository.open, Repository.open_or_create):
        with pytest.raises(Refused) as refusal:
            opened(path, state)
        messages.add(refusal.value.message)
    (message,) = messages
    return message


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702, 0o1777])
@pytest.mark.fault("A25")
def test_a_repository_that_others_can_write_is_refused_with_its_mode(tmp_path: Path, mode: int):
    Repository.create(tmp_path / "r", tmp_path / "s")
    (tmp_path / "r").chmod(mode)
    assert refused(tmp_path / "r", tmp_path / "s").endswith(f"can be written by others (mode {mode:04o})")


@pytest.mark.fault("A25")
def test_a_link_and_a_file_are_no_repository(tmp_path: Path):
    Repository.create(tmp_path / "r", tmp_path / "s")
    (tmp_path / "link").symlink_to(tmp_path / "r")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    assert "is a symbolic link" in refused(tmp_path / "link", tmp_path / "s")
    assert "is a symbolic link" in refused(tmp_path / "dangling", tmp_path / "s")
    assert "is no directory" in refused(tmp_path / "file", tmp_path / "s")
    assert not (tmp_path / "nothing").exists()


@AS_ROOT
@pytest.mark.fault("A25")
def test_a_repository_of_somebody_else_is_refused_with_both_users(tmp_path: Path):
    Repository.create(tmp_path / "r", tmp_path / "s")
    os.chown(tmp_path / "r", 65534, 65534)
    assert refused(tmp_path / "r", tmp_path / "s").endswith("belongs to user 65534, this program runs as user 0")


@AS_ROOT
@pytest.mark.fault("A25")
def test_a_read_only_repository_is_refused(tmp_path: Path):
    disk, state = tmp_path / "disk", tmp_path / "state"
    disk.mkdir()
    with mounted(disk, "-o", "mode=0700"):
        Repository.create(disk, state)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert refused(disk, state).endswith("is read-only")


@pytest.mark.fault("A25")
def test_a_stacks_directory_is_trusted_no_more_than_the_repository(tmp_path: Path, source: Path):
    repository = Repository.create(tmp_path / "r", tmp_path / "s")
    publish(repository.stack("demo"), source)
    (tmp_path / "r" / "demo").chmod(0o777)
    with pytest.raises(Refused, match="can be written by others"):
        repository.stack("demo")
    (tmp_path / "r" / "other").symlink_to(tmp_path)
    with pytest.raises(Refused, match="is a symbolic link"):
        repository.stack("other")


# A4 to A6, B3, C11: publishing cut short


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["write_file", "sync_directory", "rename"])
@pytest.mark.fault("A5", "A6")
def test_a_publish_that_fails_at_any_step_is_withdrawn(
    sets: StackSets, source: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int
):
    """Also a set that has its name already, but whose name could not be made durable."""
    (good,) = publish_daily(sets, source, 1)
    with sets.begin(START + timedelta(days=1)) as partial:
        manifest = fill(sets, partial, source, START)
        with monkeypatch.context() as patched:
            _fail_at_the_last(patched, call, error, partial.path.parent)
            with pytest.raises(OSError, match=os.strerror(error)):
                partial.publish(manifest)
    assert [entry.id for entry in sets.entries()] == [good.id]
    assert sets._partials() == []


def _fail_at_the_last(patched: pytest.MonkeyPatch, call: str, number: int, folder: Path) -> None:
    """The first two calls fail at once; the fsync only after the rename, when the stack's own directory is made durable."""
    real = getattr(durable, call)

    def fail(path: Path, *arguments: object, **options: object) -> object:
        if call != "sync_directory" or path == folder:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **options)

    patched.setattr(durable, call, fail)


@pytest.mark.fault("A2")
def test_a_killed_publish_leaves_a_partial_that_the_next_run_sweeps(tmp_path: Path, source: Path, campaign: Campaign):
    """SIGKILL at random moments: nothing half is ever listed, and what was said to be published is there."""
    count = campaign.trials(10, 100)
    sets, rng, cut_short = open_sets(tmp_path), random.Random(11), 0
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.harness.sets import open_sets, publish\n"
        "sets = open_sets(Path(sys.argv[1])); print('ready', flush=True)\n"
        "while True: print(publish(sets, Path(sys.argv[2])).id, flush=True)\n"
    )
    for _ in range(count):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(source)], cwd=PROGRAM, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        listed = {entry.id for entry in sets.entries()}
        assert set(said) <= listed
        for entry in sets.entries():
            manifest = entry.manifest
            assert manifest is not None
            assert check_artefacts(entry.path, manifest, Progress()) == []
            durable.remove_tree(entry.path)
        cut_short += len(sets.sweep())
        assert everything(sets.path) == set()
    campaign.found(
        count, "kills of a program that publishes without pause", f"{cut_short} cut short, every acknowledged set there and whole"
    )
    assert cut_short > count // 4, "hardly a run was cut short: nothing was tested"


def test_a_partial_without_its_lock_is_swept_and_one_of_a_running_process_is_not(tmp_path: Path):
    sets = open_sets(tmp_path)
    code = (
        "import sys; from pathlib import Path; from tests.harness.sets import START, open_sets\n"
        "with open_sets(Path(sys.argv[1])).begin(START) as partial:\n"
        "    (partial.path / 'dump').write_text('x'); print(partial.path.name, flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    assert sets.sweep() == []
    assert (sets.path / name / "dump").exists()
    assert sets.entries() == [], "a partial is never listed"
    process.kill()
    process.communicate()
    assert sets.sweep() == [name]
    assert everything(sets.path) == set()


@pytest.mark.fault("B3")
def test_swapped_manifests_are_found_and_the_sets_are_no_backups(sets: StackSets, source: Path):
    first, second = publish_daily(sets, source, 2)
    durable.exchange(first.path / "manifest.json", second.path / "manifest.json")
    assert [(entry.state, entry.manifest) for entry in sets.entries()] == [("damaged", None)] * 2
    assert all("is another set's" in (entry.reason or "") for entry in sets.entries())
    with pytest.raises(Refused, match="is damaged"):
        sets.resolve(first.id)


@pytest.mark.fault("B3")
def test_a_missing_and_an_edited_manifest_make_the_set_damaged(sets: StackSets, source: Path):
    first, second = publish_daily(sets, source, 2)
    (first.path / "manifest.json").unlink()
    edited = tampered(second.path / "manifest.json")
    edited.write_text(edited.read_text().replace("testhost", "elsewhere"))
    assert [entry.reason for entry in sets.entries()] == ["manifest.json is missing", "manifest.json was altered after it was sealed"]


# E-14, J29


@pytest.mark.parametrize("name", ["../x", "-rf", "latest; x", "a\0b", "x" * 4096, "/etc", "..", ".trash", ".records", ""])
def test_a_hostile_name_reaches_no_path(sets: StackSets, source: Path, name: str):
    publish(sets, source)
    for usable in (True, False):
        with pytest.raises(Refused, match="names no set") as refusal:
            sets.resolve(name, usable=usable)
        assert len(refusal.value.message) < 250


@pytest.mark.parametrize("target", ["nothing", "/etc", ".", "20250109T030000Z-000001"])
def test_no_link_is_ever_taken_for_a_set(sets: StackSets, source: Path, target: str):
    entry = publish(sets, source)
    (sets.path / "latest").symlink_to(target)
    (sets.path / "20260101T000000Z-000777").symlink_to(target)
    (sets.path / "20260102T000000Z-000778").write_text("no directory")
    assert [each.id for each in sets.entries()] == [entry.id]
    assert sets.resolve("latest").entry == entry
    with pytest.raises(Refused, match="no set of demo is named"):
        sets.resolve("20260101T000000Z-000777")
    assert publish(sets, source).sequence == 2


# H12


@AS_ROOT
def test_no_other_user_can_read_a_set(reachable: Path, source: Path):
    """The repository is where others can go, as /var/backups is. The control: what is left open there, they read."""
    entry = publish(open_sets(reachable), source)
    open_one = reachable / "open.txt"
    open_one.write_text("open")
    open_one.chmod(0o644)

    def as_nobody(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([str(word) for word in words], user=65534, group=65534, extra_groups=[], capture_output=True, check=False)

    assert as_nobody("cat", open_one).stdout == b"open"
    readable = [
        path for path in [reachable / "repository", *(reachable / "repository").rglob("*")] if as_nobody("cat", path).returncode == 0
    ]
    assert readable == []
    assert as_nobody("ls", reachable / "repository").returncode != 0
    assert as_nobody("ls", entry.path).returncode != 0
    (reachable / "repository").chmod(0o755)
    assert as_nobody("ls", reachable / "repository").returncode == 0
    assert as_nobody("ls", entry.path.parent).returncode != 0, "each directory keeps others out by itself"


# J30


def test_hundreds_of_sets_are_listed_with_one_manifest_read_each(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch):
    """Copies of one set's directory under other names would be damaged: each has a manifest of its own, written without fsync."""
    sets, reads = open_sets(tmp_path), []
    entry = publish(sets, source)
    manifest = entry.manifest
    assert manifest is not None
    for number in range(2, 501):
        time_of = START + timedelta(hours=number)
        folder = sets.path / format_id(time_of, number)
        folder.mkdir(mode=0o700)
        (folder / "manifest.json").write_bytes(replace(manifest, id=folder.name, sequence=number, created=time_of).to_bytes())
    real = entry_module.read_manifest
    monkeypatch.setattr(entry_module, "read_manifest", lambda path, **expect: reads.append(path) or real(path, **expect))
    entries = sets.entries()
    assert len(entries) == len(reads) == 500
    assert [each.sequence for each in entries] == list(range(1, 501))
    assert all(each.usable for each in entries)
    reads.clear()
    assert sets.newest_usable() == entries[-1]
    assert len(reads) == 1
