"""What a repair keeps of files goes back into the tree, and never through a link that somebody has put above it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storekeeper.host import durable
from storekeeper.stores.files import bringing, mending
from storekeeper.stores.files.mending import FilesMender
from storekeeper.stores.files.patterns import Pattern
from storekeeper.stores.files.rights import Rights
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.mending import Piece, Wanted

DOCUMENT, PATH = "7", "raw/deep/7.pdf"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "live" / "raw" / "deep").mkdir(parents=True)
    (tmp_path / "live" / PATH).write_text("seven")
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "live"


def mender(root: Path) -> FilesMender:
    return FilesMender(root, Scope(), Pattern("raw/deep/{id}.pdf"), "0123abcd", Rights.here(no_owners=True))


def taken(root: Path) -> list[Piece]:
    """The document's file is taken out of the tree; what is kept of it."""
    with mender(root).grip([Wanted(DOCUMENT)]) as grip:
        pieces = list(grip.pieces(DOCUMENT))
        grip.remove([DOCUMENT])
    assert [piece["path"] for piece in pieces] == [PATH]
    assert not (root / PATH).exists()
    return pieces


def under_the_last(root: Path) -> Path:
    (root / "raw/deep").rmdir()
    (root / "raw/deep").symlink_to(root.parent / "elsewhere")
    return root.parent / "elsewhere/7.pdf"


def under_the_first(root: Path) -> Path:
    (root / "raw/deep").rmdir()
    (root / "raw").rmdir()
    (root / "raw").symlink_to(root.parent / "elsewhere")
    return root.parent / "elsewhere/deep/7.pdf"


LINKS = (under_the_last, under_the_first)


def test_what_was_taken_goes_back_also_where_its_directories_are_gone(root: Path) -> None:
    pieces = taken(root)
    (root / "raw/deep").rmdir()
    (root / "raw").rmdir()
    assert list(mender(root).put_back(pieces)) == []
    assert (root / PATH).read_text() == "seven"
    assert [path.name for path in root.iterdir()] == ["raw"]


@pytest.mark.parametrize("link", LINKS)
def test_nothing_goes_back_through_a_link(root: Path, link: Callable[[Path], Path]) -> None:
    pieces = taken(root)
    outside = link(root)
    said = list(mender(root).put_back(pieces))
    assert len(said) == 1
    assert f"{PATH} is no directory: it was left as it is; what was taken stays in {root / pieces[0]['kept']}" in said[0]
    assert (root / pieces[0]["kept"]).read_text() == "seven"
    assert not os.path.lexists(outside)
    assert list((root.parent / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("link", LINKS)
def test_control_renamed_by_their_whole_paths_they_would_be_outside(
    root: Path, link: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def move(root: Path, source: str, target: str) -> None:
        durable.ensure_directory((root / target).parent)
        durable.rename(root / source, root / target)

    pieces = taken(root)
    outside = link(root)
    monkeypatch.setattr(mending, "_move", move)
    assert list(mender(root).put_back(pieces)) == []
    assert outside.read_text() == "seven"


@pytest.mark.parametrize("link", LINKS)
def test_directories_are_not_made_through_a_link_either(root: Path, link: Callable[[Path], Path]) -> None:
    kept = f".storekeeper-0123abcd-brought-00000000/{PATH}/more/8.pdf"
    (root / kept).parent.mkdir(parents=True)
    taken(root)
    link(root)
    with pytest.raises(bringing.LedAway, match="is no directory"):
        bringing.make_parents(root, f"{PATH}/more/8.pdf", kept)
    assert list((root.parent / "elsewhere").iterdir()) == []
