"""Where things are on this host."""

from __future__ import annotations

from pathlib import Path

import pytest

from storekeeper.outcomes import Refused
from storekeeper.stack.config import load_places, stack_names
from storekeeper.stack.mistakes import StackFileErrors

HOSTILE = [
    "../x",
    "x/../y",
    "/etc/passwd",
    "-rf",
    "",
    ".",
    "..",
    "a b",
    "a;b",
    "$(x)",
    "`x`",
    "a\nb",
    "a\0b",
    "A",
    "x" * 10_000,
    "é",
    "a.yml",
    "1a",
]


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    places = load_places(tmp_path)
    assert (places.repository, places.state, places.scratch) == (
        Path("/var/backups/storekeeper"),
        Path("/var/lib/storekeeper"),
        Path("/var/tmp"),
    )
    assert places.stack_file("maestro") == tmp_path / "stacks" / "maestro.yml"
    assert places.state_of("maestro") == Path("/var/lib/storekeeper/maestro")


def test_the_file_says_where(tmp_path: Path) -> None:
    (tmp_path / "storekeeper.yml").write_text("repository: /srv/backups\nstate: /srv/state\n")
    places = load_places(tmp_path)
    assert (places.repository, places.state, places.scratch) == (Path("/srv/backups"), Path("/srv/state"), Path("/var/tmp"))


@pytest.mark.parametrize("text", ["", "# nothing said\n", "---\n"])
def test_an_empty_file_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "storekeeper.yml").write_text(text)
    assert load_places(tmp_path).repository == Path("/var/backups/storekeeper")


def test_all_mistakes_are_said_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "storekeeper.yml"
    file.write_text("repositry: /srv\nstate: state\nscratch: /a/../b\nstate: /x\n")
    with pytest.raises(StackFileErrors) as caught:
        load_places(tmp_path)
    assert [(mistake.line, mistake.column, mistake.message, mistake.hint) for mistake in caught.value.mistakes] == [
        (1, 1, 'unknown key "repositry"', 'did you mean "repository"?'),
        (2, 8, "expected an absolute path without '..', found \"state\"", None),
        (3, 10, "expected an absolute path without '..', found \"/a/../b\"", None),
        (4, 1, 'key "state" stands twice, first in line 2', None),
    ]


@pytest.mark.parametrize("value", ["/", "5", "yes", "[/srv]", "{a: b}", '"/srv\\nx"', '"/srv\\0"'])
def test_what_is_no_path_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "storekeeper.yml").write_text(f"repository: {value}\n")
    with pytest.raises(StackFileErrors, match="expected an absolute path"):
        load_places(tmp_path)


def test_a_file_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    (tmp_path / "storekeeper.yml").write_text("repository: /srv\n")
    (tmp_path / "storekeeper.yml").chmod(0o666)
    with pytest.raises(Refused, match="mode 0666"):
        load_places(tmp_path)


def test_a_link_that_leads_nowhere_is_not_an_absent_file(tmp_path: Path) -> None:
    (tmp_path / "storekeeper.yml").symlink_to(tmp_path / "gone.yml")
    with pytest.raises(Refused, match="there is no"):
        load_places(tmp_path)


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no configuration directory"):
        load_places(tmp_path / "gone")


@pytest.mark.parametrize("name", HOSTILE)
def test_no_path_is_made_of_what_is_no_name(tmp_path: Path, name: str) -> None:
    places = load_places(tmp_path)
    for make in (places.stack_file, places.state_of):
        with pytest.raises(Refused, match="cannot be the name of a stack"):
            make(name)


def test_the_declared_stacks_are_listed_sorted(tmp_path: Path) -> None:
    assert stack_names(load_places(tmp_path)) == ()
    (tmp_path / "stacks").mkdir()
    for name in ("mem0.yml", "maestro.yml", ".hidden.yml", "notes.txt", "maestro.yml~"):
        (tmp_path / "stacks" / name).touch()
    assert stack_names(load_places(tmp_path)) == ("maestro", "mem0")


@pytest.mark.parametrize("name", ["mem0.yaml", "Maestro.yml", "my-stack.yml"])
def test_a_stack_file_that_could_never_be_loaded_is_not_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / name).touch()
    with pytest.raises(Refused, match=name):
        stack_names(load_places(tmp_path))
