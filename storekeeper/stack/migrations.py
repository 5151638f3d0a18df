"""The application's own migrations: how its record of them is read, and the commands that carry them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from storekeeper.stack import commands
from storekeeper.stack.commands import DeclaredCommand
from storekeeper.stack.mistakes import quoted
from storekeeper.stack.queries import ArgumentName, placeholders, reads, wrong_store
from storekeeper.stack.rules import Mistaken, Query
from storekeeper.stack.types import Declared, StoreName, expected

CHANGING = ("upgrade", "downgrade", "stamp")  # what each of them does is tried on a copy, and then done inside the guard
ASKING = ("current", "history")
TEST = "test"
ACTIONS = (*CHANGING, TEST, *ASKING)


class AppliedMigrations(Declared):
    """How the application's own record of its migrations is read."""

    store: Annotated[StoreName, Field(description="the store that holds it, PostgreSQL or SQLite")]
    query: Annotated[
        Annotated[Query, AfterValidator(reads)],
        Field(description="one select, a row for each migration that was applied, the newest first; its first column names it"),
    ]


class MigrationCommand(DeclaredCommand):
    """A command as those of `after_reset`, with words of its own that are typed. Whatever store it changes it is told of by `{STORE}`:
    that is how it reaches the copy on which it is tried."""

    arguments: Annotated[
        tuple[ArgumentName, ...],
        Field(max_length=20, description="the names of the words that are typed; each stands in `run` as `{name}`, and stays one word"),
    ] = ()

    def names(self) -> list[str]:
        return [name for name in super().names() if name not in self.arguments]


class Migration(Declared):
    """The application's own migrations: at least one of these."""

    applied: Annotated[
        AppliedMigrations | None, Field(description="which were applied: `status --live` says them, and `migrate` compares copy and live")
    ] = None
    upgrade: Annotated[
        MigrationCommand | None, Field(description="applies what is not applied yet, such as `[alembic, upgrade, head]`")
    ] = None
    downgrade: Annotated[MigrationCommand | None, Field(description="takes migrations back")] = None
    stamp: Annotated[MigrationCommand | None, Field(description="marks a migration as applied without running it")] = None
    test: Annotated[
        MigrationCommand | None, Field(description="the application's own tests, for a copy that was upgraded; never run on what is live")
    ] = None
    current: Annotated[MigrationCommand | None, Field(description="says what is applied, and changes nothing")] = None
    history: Annotated[MigrationCommand | None, Field(description="says which migrations there are, and changes nothing")] = None

    @model_validator(mode="after")
    def _says_something(self) -> Migration:
        if self.applied is None and not self.commands():
            raise expected(f"one of applied, {', '.join(ACTIONS)}")
        return self

    def commands(self) -> dict[str, MigrationCommand]:
        """Those that are declared, by what they do."""
        found = {action: getattr(self, action) for action in ACTIONS}
        return {action: command for action, command in found.items() if command is not None}


def contradictions(declared: Migration, kinds: Mapping[str, str]) -> Iterator[Mistaken]:
    """What no migration of stores of these kinds may say: the path inside `migration`, and a sentence."""
    if declared.applied is not None:
        yield from ((("applied", *path), sentence) for path, sentence in wrong_store(declared.applied.store, kinds))
        if named := placeholders(declared.applied.query):
            yield ("applied", "query"), f"{quoted(':' + named[0])} has no value here"
    for action, command in declared.commands().items():
        yield from (((action, *path), sentence) for path, sentence in _of_command(action, command, kinds))


def _of_command(action: str, command: MigrationCommand, kinds: Mapping[str, str]) -> Iterator[Mistaken]:
    yield from commands.mistakes(command, list(kinds))
    if action not in ASKING and not command.names():
        yield ("run",), "it names no store, so it could not be told where a copy is and would change what is live: say {STORE} in it"
    words = " ".join((*command.run, *command.environment.values()))
    for name in command.arguments:
        if name in kinds:
            yield ("arguments",), f"{name} is a store"
        elif f"{{{name}}}" not in words:
            yield ("arguments",), f"the command has no {{{name}}}"
    if len(command.arguments) != len(set(command.arguments)):
        yield ("arguments",), "an argument stands twice"
