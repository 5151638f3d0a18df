"""What an inventory declares of a server beside its stacks: users of services, directories, logs that are rotated, secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from storekeeper.stack.mistakes import dotted
from storekeeper.stack.names import NAME_PATTERN
from storekeeper.stack.types import AbsolutePath, Declared, Matching

UserName = Annotated[str, Matching(r"[a-z_][a-z0-9_-]{0,30}", "the name of a user")]
Mode = Annotated[str, Matching(r"[0-7]{3,4}", "a mode such as 750")]
LogPattern = Annotated[str, Matching(r"(?!.*/\.\.(/|$))/[A-Za-z0-9_./*-]{1,200}", "an absolute path, with * where files differ")]

Kind = TypeVar("Kind", bound=Declared)


class User(Declared):
    """A user that a service runs as. Nobody logs in as one."""

    home: AbsolutePath | None = None
    shell: AbsolutePath | None = None
    groups: tuple[UserName, ...] = ()


class Directory(Declared):
    user: UserName = "root"
    mode: Mode = "750"


class Log(Declared):
    """Files of a program that goes on writing to them: they are copied and emptied."""

    files: Annotated[tuple[LogPattern, ...], Field(min_length=1)]
    user: UserName = "root"
    every: Literal["daily", "weekly", "monthly"] = "daily"
    keep: Annotated[int, Field(ge=1, le=1000, description="how many old ones stay")] = 14


def named(kind: type[Kind], given: object, where: str, name: str) -> dict[str, Kind]:
    """Things by name, checked. Raises ValueError with every mistake, a line each; `name` is the pattern of a name."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} takes names, each with what it is, not a {type(given).__name__}")  # noqa: TRY004 said to a person, as all that is wrong
    found, wrong = {}, []
    for key, value in sorted(given.items()):
        if not isinstance(key, str) or not re.fullmatch(name, key):
            wrong.append(f"{where}: {key!r:.80} is no name that can stand here")
            continue
        try:
            found[key] = kind.model_validate(tuples(value))
        except ValidationError as error:
            wrong += sentences(error, f"{where}.{key}")
    if wrong:
        raise ValueError("\n".join(wrong))
    return found


def sentences(error: ValidationError, where: str) -> list[str]:
    """A line for each mistake. What was found is not shown: it may be a secret."""
    lines = []
    for each in error.errors(include_input=False, include_url=False):
        path = dotted(each["loc"])
        lines.append(f"{where}{'.' if path and not path.startswith('[') else ''}{path:.200}: {each['msg']}")
    return lines


def tuples(given: Any) -> Any:
    """Python writes lists where the models have tuples."""
    if isinstance(given, Mapping):
        return {key: tuples(value) for key, value in given.items()}
    return tuple(tuples(each) for each in given) if isinstance(given, list | tuple) else given


USERS = r"[a-z_][a-z0-9_-]{0,30}"
PATHS = r"(?!.*/\.\.(/|$))/[^\x00-\x1f\x7f-\x9f]{1,400}"
NAMES = NAME_PATTERN
SECRETS = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
