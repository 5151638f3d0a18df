"""Being another user in one thread: what other threads do meanwhile they do as themselves."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from storekeeper.host.identity import acting_as
from storekeeper.host.processes import User
from tests.harness.stacks import in_child

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="being another user needs root")]
NOBODY = User("nobody", 65534, 65534)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may write to, and reach."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o777)
        yield Path(made)


class Other:
    """Another thread, which was there before: one that is made in the block would be that user too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._asked = threading.Event()
        self._owner = -1
        self._thread = threading.Thread(target=self._make, daemon=True)
        self._thread.start()

    def owner_of_what_it_makes_now(self) -> int:
        self._asked.set()
        self._thread.join()
        return self._owner

    def _make(self) -> None:
        self._asked.wait()
        self._path.touch()
        self._owner = self._path.stat().st_uid


@pytest.mark.fault("H12")
def test_only_the_calling_thread_is_the_other_user_and_it_is_itself_again(place: Path) -> None:
    other = Other(place / "theirs")
    with acting_as(NOBODY):
        (place / "ours").touch()
        assert (os.geteuid(), os.getegid()) == (NOBODY.uid, NOBODY.gid)
        assert other.owner_of_what_it_makes_now() == 0
    assert (place / "ours").stat().st_uid == NOBODY.uid
    assert (os.geteuid(), os.getegid()) == (0, 0)


@pytest.mark.control("H12")
def test_control_the_c_librarys_call_makes_every_thread_that_user(place: Path) -> None:
    def with_the_librarys() -> None:
        other = Other(place / "theirs")
        os.seteuid(NOBODY.uid)
        assert other.owner_of_what_it_makes_now() == NOBODY.uid

    assert in_child(with_the_librarys) == 0


def test_an_error_in_the_block_gives_the_ids_back_and_nobody_changes_nothing() -> None:
    with pytest.raises(ValueError, match="broken"), acting_as(NOBODY):
        raise ValueError("broken")
    assert (os.geteuid(), os.getegid()) == (0, 0)
    with acting_as(None):
        assert os.geteuid() == 0


def test_without_the_right_to_it_nothing_is_changed() -> None:
    def as_nobody() -> None:
        os.setresgid(NOBODY.gid, NOBODY.gid, NOBODY.gid)
        os.setresuid(NOBODY.uid, NOBODY.uid, NOBODY.uid)
        with pytest.raises(PermissionError), acting_as(User("daemon", 1, 1)):
            raise AssertionError
        assert os.geteuid() == NOBODY.uid

    assert in_child(as_nobody) == 0
