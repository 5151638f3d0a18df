"""Which Debian packages a declared server needs, and where they are to be had."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pyinfra import host
from pyinfra.api import FactBase, FunctionCommand, StringCommand, operation
from pyinfra.api.facts import get_fact
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import File, Sha256File

from .. import debian
from ..facts.postgresql import Found
from ..program import refused, unread
from .model import Server, Source

KEY = "/etc/apt/keyrings/storekeeper-postgresql.asc"
SOURCE = "/etc/apt/sources.list.d/storekeeper-postgresql.sources"
_TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
_PUBLIC = re.compile(r"\s*-----BEGIN PGP PUBLIC KEY BLOCK-----\n.*\n-----END PGP PUBLIC KEY BLOCK-----\s*", re.DOTALL)

# Extensions with a package of their own; all others are in the server's (contrib is part of it since version 10 on Debian).
_PACKAGED = {"vector": "pgvector"}


@dataclass(frozen=True)
class Distribution:
    """What a release of Debian has in its own index."""

    version: int
    extensions: frozenset[str]


DEBIAN: Mapping[str, Distribution] = {"12": Distribution(15, frozenset()), "13": Distribution(17, frozenset({"vector"}))}


def needed(server: Server) -> Sequence[str]:
    """The packages, the server's first."""
    own = sorted({each for database in server.databases.values() for each in database.extensions} & set(_PACKAGED))
    return [f"postgresql-{server.version}", *(f"postgresql-{server.version}-{_PACKAGED[each]}" for each in own)]


def refusal(server: Server, found: Found) -> str | None:
    """Why it cannot be installed, in a sentence with what to do; None where it can, or is installed already."""
    if server.source is not None or all(package in found.packages for package in needed(server)):
        return None
    name = f"Debian {found.release}"
    own = DEBIAN.get(found.release)
    if own is None:
        return f"which PostgreSQL {found.distribution} {found.release} has is not known: declare a source of packages"
    if server.version != own.version:
        return (
            f"{name} has PostgreSQL {own.version}, declared is {server.version}: declare {own.version}, or a source of packages that has it"
        )
    for database, declared in server.databases.items():
        for extension in declared.extensions:
            if extension in _PACKAGED and extension not in own.extensions:
                return (
                    f"{name} has no package of {extension}, which databases.{database} declares: declare a source of packages that has it"
                )
    return None


@operation()
def sourced(server: Server) -> Generator[StringCommand | FunctionCommand, None, None]:
    """
    Have the declared source of packages, and no other that was declared before.

    It is put in its place once it has shown, beside it, that it can be read, is signed with the declared key, and that what is needed can
    be installed with it. Until then, and where it has not, apt on the host knows what it knew before.

    + server: what is declared

    **Example:**

    .. code:: python

        postgresql.sourced(name="Source of the packages", server=server)
    """
    if server.source is None:
        yield from _unsourced()
        return
    packages = get_fact(host.state, host, DebPackages, apply_failed_hosts=False)
    if not packages:
        yield unread("which packages are installed")
        return
    try:
        key = public_key(server.source)
    except ValueError as error:
        yield refused(str(error))
        return
    wanted = {SOURCE: _rendered(server.source, KEY), KEY: key}
    if all(_is_there(path, text) for path, text in wanted.items()) and all(package in packages for package in needed(server)):
        host.noop(f"packages come from {server.source.uri}, too")
        return
    yield StringCommand("sh -c " + shlex.quote(_script(server, server.source, key)))


def _unsourced() -> Generator[StringCommand, None, None]:
    if any(_asked(File, path) for path in (SOURCE, KEY)):
        yield StringCommand(f"rm -f {SOURCE} {KEY}")
    else:
        host.noop("packages come from the distribution")


def _is_there(path: str, text: str) -> bool:
    """Whether a file is as it should be, and can be read by the user that apt checks signatures as."""
    found = _asked(File, path)
    is_ours = bool(found) and (found["user"], found["mode"]) == ("root", 644)
    return is_ours and _asked(Sha256File, path) == hashlib.sha256(text.encode()).hexdigest()


def _asked(fact: type[FactBase[Any]], path: str) -> Any:
    return get_fact(host.state, host, fact, kwargs={"path": path}, apply_failed_hosts=False)


def public_key(source: Source) -> str:
    """The text of its key. Raises ValueError where it cannot be read, and for what is no public key: a private one must not travel."""
    try:
        text = Path(source.key).expanduser().read_text(encoding="ascii")
    except OSError as error:
        raise ValueError(f"the key of the source of packages could not be read: {error.strerror}: {source.key}") from error
    except UnicodeDecodeError:
        text = ""
    if not _PUBLIC.fullmatch(text):
        raise ValueError(f"{source.key} is no public key in letters: write it with gpg --armor --export")
    return text


def _rendered(source: Source, key: str) -> str:
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.get_template("source.j2").render(source=source, key=key)


_SOURCED = """
set -eu
{functions}
umask 022
new=/run/storekeeper-source
trap 'rm -rf "$new"' EXIT
rm -rf "$new"
mkdir -p "$new/alone/lists/partial" "$new/parts" "$new/only" {keys}
chown _apt "$new/alone/lists/partial"
cp -a /etc/apt/sources.list.d/. "$new/parts"
printf %s {key} >"$new/key.asc"
printf %s {staged} >"$new/parts/{file}"
cp "$new/parts/{file}" "$new/only"
ready
alone="-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$new/only -o Dir::State::Lists=$new/alone/lists"
if ! said=$(index $alone --error-on=any 2>&1); then
    case $said in
    *"is not signed"* | *"GPG error"*) echo "{uri} is not signed with the declared key, nothing was installed: $said" >&2 ;;
    *) echo "the source of packages {uri} could not be read, nothing was installed: $said" >&2 ;;
    esac
    exit 1
fi
with="-o Dir::Etc::SourceParts=$new/parts"
index $with
if ! said=$(apt -s $with --no-install-recommends install {needed} 2>&1); then
    one_line "{words} cannot be installed with the source of packages {uri}, nothing was installed: $said" >&2
    exit 1
fi
cp "$new/key.asc" {to_key}.new
printf %s {rendered} >{to_source}.new
mv -T {to_key}.new {to_key}
mv -T {to_source}.new {to_source}
"""


def _script(server: Server, source: Source, key: str) -> str:
    names = needed(server)
    return _SOURCED.format(
        functions=debian.FUNCTIONS,
        keys=shlex.quote(str(Path(KEY).parent)),
        key=shlex.quote(key),
        staged=shlex.quote(_rendered(source, "/run/storekeeper-source/key.asc")),
        rendered=shlex.quote(_rendered(source, KEY)),
        file=Path(SOURCE).name,
        needed=" ".join(shlex.quote(name) for name in names),
        words=" and ".join(names),
        uri=f"{source.uri} {source.suite}",
        to_key=KEY,
        to_source=SOURCE,
    )
