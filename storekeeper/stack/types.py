"""The types of every word of a stack file that reaches SQL, a path, an argument list or a rendered file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from storekeeper.stack.names import NAME_PATTERN

_SIZES = {"kB": 10**3, "MB": 10**6, "GB": 10**9}
_LEAST_RATE = 100_000  # bytes a second: below, a small set would take days
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Declared(BaseModel):
    """Base of everything declared: frozen, exact types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, serialize_by_alias=True)


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by the keys that stand in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def expected(meaning: str) -> PydanticCustomError:
    """A value that is not what it should be. Whoever shows it decides whether to show what was found: it may be a secret."""
    return PydanticCustomError("expected", "expected {meaning}", {"meaning": meaning})


@dataclass(frozen=True)
class Matching:
    """A text of one shape, for the model and for its JSON schema."""

    pattern: str
    meaning: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "pattern": f"^({self.pattern})$", "description": self.meaning}

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise expected(self.meaning)
        return text


def _absolute(value: object) -> Path:
    text = str(value) if isinstance(value, Path) else value
    if not isinstance(text, str) or not text.startswith("/") or len(text.encode(errors="replace")) > 4000 or _has_control_signs(text):
        raise expected("an absolute path")
    path = PurePosixPath(text)
    if ".." in path.parts or not path.name:
        raise expected("an absolute path without '..'")
    return Path("/", *path.parts[1:])


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if not path.name or path.is_absolute() or ".." in path.parts or str(path) != text or len(text) > 4000 or _has_control_signs(text):
        raise expected("a path below the store's root")
    return text


def _has_control_signs(text: str) -> bool:
    return any(ord(sign) < 32 or ord(sign) == 127 or 0xD800 <= ord(sign) <= 0xDFFF for sign in text)


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and (found := re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", value)):
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    raise expected("a duration such as 30m, 26h, 7d or 2w")


def spoken_duration(span: timedelta) -> str:
    """The shortest exact form that `Duration` reads."""
    minutes = int(span.total_seconds()) // 60
    for unit, size in (("w", 10080), ("d", 1440), ("h", 60)):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"


def _rate(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= _LEAST_RATE:
        return value
    if isinstance(value, str) and (found := re.fullmatch(r"([1-9][0-9]{0,3})([kMG]B)", value)):
        rate = int(found[1]) * _SIZES[found[2]]
        if rate >= _LEAST_RATE:
            return rate
    raise expected("bytes a second such as 50MB, at least 100kB")


def spoken_rate(rate: int) -> str:
    """The shortest exact form that `Rate` reads."""
    unit = next((unit for unit in ("GB", "MB", "kB") if rate % _SIZES[unit] == 0), "kB")
    return f"{rate // _SIZES[unit]}{unit}"


StackName = Annotated[str, Matching(NAME_PATTERN, "a name (a-z, 0-9, _, a letter first, at most 40)")]
StoreName = StackName
# Names of PostgreSQL: at most 63 bytes; what libpq would read as a connection string or a program as an option is left out.
SqlName = Annotated[str, Matching(r"[A-Za-z_][A-Za-z0-9_.@-]{0,62}", "a database or role name (letters, digits, _ . @ -, at most 63)")]
UnitName = Annotated[str, Matching(r"[A-Za-z0-9_][A-Za-z0-9:_.@-]{0,199}", "the name of a systemd unit")]
HostName = Annotated[
    str,
    Matching(
        r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,250}[A-Za-z0-9])?|/[A-Za-z0-9_./-]{0,100}", "a host name, an address or the directory of a socket"
    ),
]
EnvironmentName = Annotated[str, Matching(r"[A-Za-z_][A-Za-z0-9_]{0,99}", "the name of an environment variable")]
HttpUrl = Annotated[str, Matching(r"https?://[A-Za-z0-9][A-Za-z0-9.:-]*(/[A-Za-z0-9._~!&()*+,;=:@/%?-]*)?", "an http or https address")]
AbsolutePath = Annotated[
    Path,
    PlainValidator(_absolute),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^/", "description": "an absolute path"}),
]
InnerPath = Annotated[str, AfterValidator(_inside)]
Duration = Annotated[
    timedelta,
    PlainValidator(_duration),
    PlainSerializer(spoken_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,4}[mhdw]$", "description": "a duration such as 26h or 7d"}),
]
Rate = Annotated[
    int,
    PlainValidator(_rate),
    PlainSerializer(spoken_rate, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,3}[kMG]B$", "description": "bytes a second such as 50MB, at least 100kB"}),
]


class SecretReference(Declared):
    """Where a secret is, never what it is: a private file, or a variable of the caller's environment."""

    file: Annotated[AbsolutePath | None, Field(description="a file that only its owner can read, with nothing but the secret in it")] = None
    env: Annotated[EnvironmentName | None, Field(description="a variable of the caller's environment; not in a stack with a schedule")] = (
        None
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretReference:
        if (self.file is None) == (self.env is None):
            raise expected("exactly one of file and env")
        return self


class Setting(Declared):
    """One key of the application's own `.env` file, whose value is the address of a database."""

    file: Annotated[AbsolutePath, Field(description="the file, read on the host each time; comments, `export` and quotes are known")]
    key: Annotated[EnvironmentName, Field(description="the key, such as `DATABASE_URL`")]
