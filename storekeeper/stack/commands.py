"""A command of the application as it is declared: its words, who runs it and where. It never goes through a shell, and holds no secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from storekeeper.stack.types import AbsolutePath, Declared, Duration, EnvironmentName, Matching, StoreName, expected

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]{0,39})\}")
_OURS = ("PGPASSFILE", "PGPASSWORD")
_LONGEST = 4000  # characters of one word


def _plain(text: str) -> str:
    if "\0" in text or len(text) > _LONGEST:
        raise expected(f"one word of at most {_LONGEST} characters, without NUL")
    return text


UserName = Annotated[str, Matching(r"[a-z_][a-z0-9_.-]{0,31}", "the name of a user of the system")]
Word = Annotated[str, AfterValidator(_plain)]


class DeclaredCommand(Declared):
    """A command of the application. `{STORE}` stands for the path of a store, or for the address of a database without its password."""

    run: Annotated[
        tuple[Word, ...], Field(min_length=1, description="the program and its words, such as `[alembic, upgrade, head]`; never a shell")
    ]
    user: Annotated[UserName | None, Field(description="the user of the system who runs it; the program's own when left out")] = None
    directory: Annotated[AbsolutePath | None, Field(description="where it runs; `/` when left out")] = None
    environment: Annotated[
        dict[EnvironmentName, Word], Field(description="variables beside PATH, HOME and LC_ALL; never a secret: everybody can read them")
    ] = Field(default_factory=dict)
    timeout: Annotated[Duration, Field(description="how long it may take")] = timedelta(hours=1)

    @property
    def spoken(self) -> str:
        """Its first words, for sentences and plans."""
        return " ".join(self.run)

    def names(self) -> list[str]:
        """The stores that it is told the place of."""
        return list(dict.fromkeys(name for word in (*self.run, *self.environment.values()) for name in _PLACEHOLDER.findall(word)))


def filled(word: str, addresses: Mapping[str, str]) -> str:
    """A word with the places of stores in it; a name that is no store's stays as it is."""
    return _PLACEHOLDER.sub(lambda found: addresses.get(found[1], found[0]), word)


def mistakes(command: DeclaredCommand, stores: Collection[StoreName]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What the model of one command alone cannot see: each with its place in the command."""
    for name in command.names():
        if name not in stores:
            yield ("run",), f"{{{name}}} names no store; there are {', '.join(stores)}"
    for name in command.environment:
        if name in _OURS:
            yield ("environment", name), "a password is handed on by storekeeper itself, in a private file: declare none"
    if not command.run[0]:
        yield ("run",), "the first word is the program"
