"""Mounts inside a repository: what is published and what is removed stays one rename, or is refused."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from storekeeper.host import durable
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Refused
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.pruning import prune
from storekeeper.sets.publishing import take_set
from storekeeper.stack.model import Keep
from tests.harness.stacks import Lab, make_lab

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a mount needs root")


@contextmanager
def mounted(place: Path, *, bind: Path | None = None) -> Iterator[Path]:
    """Another file system at `place`, or the directory `bind` a second time."""
    place.mkdir(mode=0o700, exist_ok=True)
    words = ["--bind", str(bind)] if bind else ["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs"]
    subprocess.run(["mount", *words, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def laboratory(room: Path) -> Iterator[Lab]:
    lab = make_lab(room, sqlites=1, services=0)
    try:
        lab.write("one")
        yield lab
    finally:
        lab.close()


def is_whole(lab: Lab) -> bool:
    entries = lab.context.sets.entries()
    return bool(entries) and all(
        each.manifest is not None and not check_artefacts(each.path, each.manifest, Progress()) for each in entries
    )


@pytest.mark.fault("A23")
def test_a_stack_on_a_disk_of_its_own_is_published_by_one_rename_on_that_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set is made beside the sets: never on the repository's disk, nor in a directory for temporary files."""
    with laboratory(tmp_path) as lab, mounted(tmp_path / "repository/demo") as stack:
        renames: list[tuple[Path, Path]] = []
        rename = durable.rename
        monkeypatch.setattr(durable, "rename", lambda source, target: (renames.append((source, target)), rename(source, target))[1])
        entry = take_set(lab.context, purpose="backup")
        assert renames == [(stack / f".{entry.id}.partial", stack / entry.id)]
        assert entry.path.stat().st_dev == stack.stat().st_dev != tmp_path.stat().st_dev
        assert is_whole(lab)
        assert {path.name for path in stack.iterdir()} == {entry.id}


@pytest.mark.fault("A23")
def test_a_repository_that_is_bound_to_another_place_is_the_same_repository(tmp_path: Path) -> None:
    with laboratory(tmp_path) as lab:
        first = take_set(lab.context, purpose="backup")
        (tmp_path / "behind").mkdir(mode=0o700)
        (tmp_path / "repository").rename(tmp_path / "behind/repository")
        with mounted(tmp_path / "repository", bind=tmp_path / "behind/repository"):
            second = take_set(lab.context, purpose="backup")
            assert [entry.id for entry in lab.context.sets.entries()] == [first.id, second.id]
            assert is_whole(lab)
        assert (tmp_path / "behind/repository/demo" / second.id / "manifest.json").is_file()


@pytest.mark.fault("A23")
@pytest.mark.parametrize("bound", [False, True], ids=["another disk", "the same disk, bound"])
def test_a_trash_on_another_mount_removes_no_set_by_halves(tmp_path: Path, bound: bool) -> None:
    """No rename leads there: what retention may not do in one step it does not begin, and says so."""
    with laboratory(tmp_path) as lab, ExitStack() as opened:
        entries = [take_set(lab.context, purpose="backup") for _ in range(3)]
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        opened.enter_context(mounted(lab.context.sets.trash, bind=tmp_path / "elsewhere" if bound else None))
        with pytest.raises(Refused, match="is another mount than its sets") as refusal:
            prune(lab.context.sets, Keep(days=0, daily=0, weekly=0, monthly=0, at_least=2), entries[-1].time)
        assert refusal.value.next == f"umount {lab.context.sets.trash}"
        assert [entry.id for entry in lab.context.sets.entries()] == [entry.id for entry in entries]
        assert is_whole(lab)


@pytest.mark.control("A23")
def test_control_no_rename_leads_from_one_mount_to_another_not_even_on_the_same_disk(tmp_path: Path) -> None:
    """A set that was made elsewhere could only be copied to its name: seen half, and left half by a crash."""
    (tmp_path / "set").mkdir()
    (tmp_path / "behind").mkdir()
    with mounted(tmp_path / "disk") as disk, mounted(tmp_path / "bound", bind=tmp_path / "behind") as bound:
        for place in (disk, bound):
            with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
                os.rename(tmp_path / "set", place / "set")
