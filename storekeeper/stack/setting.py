"""A store's place as the application itself is told it: one key of its own `.env` file, which holds the address of its database.

The file is read when the place is needed, on the host alone. An address may hold a password: no message here, nor anything built from one,
holds a part of it.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from urllib.parse import parse_qs, unquote

from storekeeper.outcomes import Refused
from storekeeper.stack.types import Setting

_LONGEST = 1 << 20  # bytes of such a file
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=[ \t]*(.*?)\s*")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
# As SQLAlchemy takes an address apart, which is what most applications give it to.
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9]*)(?:\+[a-z0-9_]+)?://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<ipv6>[^/?\]]+)\]|(?P<host>[^/:?]+))?(?::(?P<port>[^/?]*))?"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Address:
    """An address taken apart; `password` never stands in a text that is made of it."""

    scheme: str
    user: str | None
    password: str | None = field(repr=False)
    host: str | None
    port: str | None
    database: str | None


def read_address(setting: Setting, label: str) -> Address:
    """What the key says now; `label` says whose it is. Raises Refused, naming file and key, for a file that cannot be read or has no such
    key, and for what is no address.
    """
    found = _ADDRESS.fullmatch(_value(setting, label))
    if found is None:
        raise refused(setting, label, "is no address such as sqlite:////srv/app/app.db or postgresql://user@host/database")
    asked = parse_qs(found["query"] or "")
    return Address(
        found["scheme"],
        _unquoted(found["user"]),
        _unquoted(found["password"]),
        found["ipv6"] or found["host"] or next(iter(asked.get("host", ())), None),
        found["port"] or next(iter(asked.get("port", ())), None),
        found["database"] or None,
    )


def refused(setting: Setting, label: str, what: str) -> Refused:
    """The refusal that names file and key, and never the value."""
    return Refused(f"{label}: {setting.key} of {setting.file} {what}", next=f"ls -l {quote(str(setting.file))}")


def is_open_to_all(setting: Setting) -> bool:
    """Whether every user of the host may read the file."""
    try:
        return bool(os.stat(setting.file).st_mode & stat.S_IROTH)
    except OSError:
        return False


def _value(setting: Setting, label: str) -> str:
    text = _text(setting.file, f"{label}: {setting.file}")
    value: str | None = None
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found and found[1] == setting.key:  # the last one counts, as it does for the application
            value = _plain(found[2])
            if value is None:
                raise refused(setting, label, "is not one word on one line: its quotes do not end, or it refers to another variable")
    if value is None:
        raise Refused(f"{label}: {setting.file} has no {setting.key}", next=f"ls -l {quote(str(setting.file))}")
    return value


def _text(path: Path, what: str) -> str:
    try:
        # Without waiting: a named pipe in its place must not hang a run.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise Refused(f"{what} cannot be read: {error.strerror}", next=f"ls -l {quote(str(path))}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(f"{what} is no regular file", next=f"ls -ld {quote(str(path))}")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(_LONGEST + 1)
    finally:
        os.close(descriptor)
    try:
        if len(data) <= _LONGEST:
            return data.decode()
    except UnicodeDecodeError:
        pass  # the exception holds the bytes, and must not travel with ours
    raise Refused(f"{what} is no text of at most {_LONGEST} bytes")


def _plain(text: str) -> str | None:
    """A value without its quotes and the comment behind it; None for one that is not written out on its line."""
    if text[:1] == "'":
        found = re.fullmatch(r"'([^']*)'\s*(#.*)?", text)
        return found[1] if found else None
    if text[:1] == '"':
        found = re.fullmatch(r'"((?:[^"\\]|\\.)*)"\s*(#.*)?', text)
        value = re.sub(r"\\(.)", lambda sign: _ESCAPED.get(sign[1], sign[1]), found[1]) if found else None
    else:
        value = re.sub(r"(^|\s+)#.*", "", text)
    return None if value is None or "${" in value or "\n" in value else value


def _unquoted(text: str | None) -> str | None:
    return None if text is None else unquote(text)
