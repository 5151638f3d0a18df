"""Patterns of files: which entries they match, whose id stands in them, and what of them cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from storekeeper.host.tree import opened
from storekeeper.outcomes import Failed
from storekeeper.stores.files.patterns import Pattern
from storekeeper.stores.files.scope import Scope


def matches(root: Path, pattern: str, *include: str) -> list[tuple[str, str, str | None]]:
    with opened({"": root}) as tree:
        return sorted(Pattern(pattern).entries(tree, Scope(include)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = [
        "pdfs/a_one.pdf",
        "pdfs/b_two.pdf",
        "pdfs/plain.pdf",
        "by/ann/1.pdf",
        "by/bob/2.pdf",
        "by/bob/deep/3.pdf",
        "by/stray.pdf",
        "x.md",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_an_id_ends_where_the_text_after_it_begins(root: Path) -> None:
    assert matches(root, "pdfs/{id}_*") == [("pdfs/a_one.pdf", "a", None), ("pdfs/b_two.pdf", "b", None)]
    assert matches(root, "{id}.md") == [("x.md", "x", None)]
    assert matches(root, "pdfs/?_{id}.pdf") == [("pdfs/a_one.pdf", "one", None), ("pdfs/b_two.pdf", "two", None)]


def test_an_owner_may_stand_in_the_path_too(root: Path) -> None:
    assert matches(root, "by/{owner}/{id}.pdf") == [("by/ann/1.pdf", "1", "ann"), ("by/bob/2.pdf", "2", "bob")]


def test_a_document_may_be_a_directory(root: Path) -> None:
    assert matches(root, "by/{id}") == [("by/ann", "ann", None), ("by/bob", "bob", None), ("by/stray.pdf", "stray.pdf", None)]


def test_only_what_the_store_covers_counts(root: Path) -> None:
    assert matches(root, "by/{owner}/{id}.pdf", "by/bob", "pdfs") == [("by/bob/2.pdf", "2", "bob")]
    assert matches(root, "{id}.md", "pdfs") == []


@pytest.mark.parametrize(
    ("pattern", "ends"),
    [
        ("pdfs/{id}_*", ("_",)),
        ("pdfs/{id}.pdf", ()),
        ("pdfs/*-{id}.pdf", ("-",)),
        ("{owner}/{id}.pdf", ()),
        ("{owner}.{id}.pdf", (".",)),
        ("pdfs/?{id}_x".replace("?{", "?.{"), (".",)),
    ],
)
def test_what_no_id_may_hold_is_known_from_the_pattern(pattern: str, ends: tuple[str, ...]) -> None:
    assert Pattern(pattern).ends == ends


def test_a_root_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="its root cannot be read"):
        matches(tmp_path / "gone", "{id}.md")


def test_a_file_or_link_in_place_of_a_directory_is_no_empty_one(root: Path) -> None:
    (root / "raw").write_text("no directory")
    (root / "linked").symlink_to(root / "pdfs")
    for folder in ("raw", "linked"):
        with pytest.raises(Failed, match=f"{folder} is no directory"):
            matches(root, f"{folder}/{{id}}_*")
    assert matches(root, "never/made/{id}.md") == []


@pytest.mark.parametrize(
    ("pattern", "path", "document", "holds"),
    [
        ("raw/{id}_*", "raw/4711_a.pdf", "4711", True),
        ("raw/{id}_*", "raw/4711_a.pdf", "471", False),
        ("{owner}/{id}.pdf", "anna/4711.pdf", "4711", True),
        ("{owner}/{id}.pdf", "anna", "4711", False),
        ("books/{id}", "books/4711/pages/1.png", "4711", True),
        ("books/{id}", "books/4712/4711", "4711", False),
    ],
)
def test_a_path_is_a_documents_by_its_names_alone(pattern: str, path: str, document: str, holds: bool) -> None:
    assert Pattern(pattern).holds(path, document) is holds
