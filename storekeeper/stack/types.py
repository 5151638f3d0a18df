"""The types of every word of a stack file that reaches SQL, a path, an argument list or a rendered file."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema, model_validator

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Declared(BaseModel):
    """Base of everything declared: frozen, exact types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _matching(pattern: str, meaning: str) -> AfterValidator:
    expression = re.compile(pattern)

    def check(text: str) -> str:
        if not expression.fullmatch(text):
            raise ValueError(f"expected {meaning}, found {_shown(text)}")
        return text

    return AfterValidator(check)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _absolute(text: object) -> Path:
    if isinstance(text, Path):
        text = str(text)
    if not isinstance(text, str):
        raise ValueError(f"expected an absolute path, found {text!r}")
    if not text.startswith("/") or len(text.encode()) > 4000 or any(ord(sign) < 32 or ord(sign) == 127 for sign in text):
        raise ValueError(f"expected an absolute path, found {_shown(text)}")
    path = PurePosixPath(text)
    if ".." in path.parts or str(path) == "/":
        raise ValueError(f"expected an absolute path without '..', found {_shown(text)}")
    return Path(path)


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if not text or text.startswith("/") or ".." in path.parts or str(path) != text or any(ord(sign) < 32 for sign in text):
        raise ValueError(f"expected a path below the store's root, found {_shown(text)}")
    return text


def _duration(text: object) -> timedelta:
    if isinstance(text, timedelta):
        return text
    if isinstance(text, str) and (found := re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text)):
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    raise ValueError(f"expected a duration such as 30m, 26h, 7d or 2w, found {text!r}")


def spoken_duration(span: timedelta) -> str:
    """The shortest exact form that `Duration` reads."""
    minutes = int(span.total_seconds()) // 60
    for unit, size in (("w", 10080), ("d", 1440), ("h", 60)):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"


StackName = Annotated[str, _matching(r"[a-z][a-z0-9_]{0,39}", "a stack's name (a-z, 0-9, _, at most 40)")]
StoreName = Annotated[str, _matching(r"[a-z][a-z0-9_]{0,39}", "a store's name (a-z, 0-9, _, at most 40)")]
# Names of PostgreSQL: at most 63 bytes; what libpq would read as a connection string or a program as an option is left out.
SqlName = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_.@-]{0,62}", "a database or role name (letters, digits, _ . @ -, at most 63)")]
UnitName = Annotated[str, _matching(r"[A-Za-z0-9_][A-Za-z0-9:_.@-]{0,199}", "the name of a systemd unit")]
HostName = Annotated[
    str, _matching(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,250}[A-Za-z0-9])?|/[A-Za-z0-9_./-]{0,100}", "a host name, an address or the directory of a socket")
]
EnvironmentName = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_]{0,99}", "the name of an environment variable")]
HttpUrl = Annotated[str, _matching(r"https?://[A-Za-z0-9][A-Za-z0-9.:-]*(/[A-Za-z0-9._~!&()*+,;=:@/%?-]*)?", "an http or https address")]
AbsolutePath = Annotated[
    Path, BeforeValidator(_absolute), PlainSerializer(str), WithJsonSchema({"type": "string", "pattern": "^/", "description": "an absolute path"})
]
InnerPath = Annotated[str, AfterValidator(_inside)]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(spoken_duration),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,4}[mhdw]$", "description": "a duration such as 26h or 7d"}),
]


class SecretReference(Declared):
    """Where a secret is, never what it is: a private file, or a variable of the caller's environment."""

    file: AbsolutePath | None = None
    env: EnvironmentName | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretReference:
        if (self.file is None) == (self.env is None):
            raise ValueError("expected exactly one of file and env")
        return self
