"""Directories and files of a host. One look tells which are as declared; only the others are left to pyinfra, with looks of its own.

Each operation takes `among`: all the paths of one deploy, by which the look is shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from io import StringIO
from typing import Any
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import State, operation
from pyinfra.api.facts import get_fact
from pyinfra.api.util import get_template
from pyinfra.operations import files

from .facts.entries import Entries, Entry
from .program import refused

Commands = Generator[Any, None, None]
# What a look has told in this run, by host and paths. Each entry is taken out when it is asked for: what is asked again is looked at again.
_seen: WeakKeyDictionary[State, dict[tuple[str, tuple[str, ...]], dict[str, Entry]]] = WeakKeyDictionary()


@operation()
def uploads() -> Commands:
    """
    Have the directory through which files for root go, `config.TEMP_DIR`, where only who logs in can enter. Asked for without sudo.

    **Example:**

    .. code:: python

        entries.uploads(name="Directory of uploads", _sudo=False)
    """
    path = host.state.config.TEMP_DIR
    if not path:
        yield refused("config.TEMP_DIR names no directory of uploads to be made: set it in config.py, which pyinfra reads first")
        return
    yield from files.directory._inner(path=path, mode="700")


@operation()
def directory(path: str, user: str, mode: str, group: str | None = None, among: Sequence[str] = ()) -> Commands:
    """
    Have a directory with this owner and mode. Its parents are made where they are missing.

    + path: where it is
    + user: its owner
    + mode: its mode, such as ``750``
    + group: its group; any when left out
    + among: all paths that are looked at together

    **Example:**

    .. code:: python

        entries.directory(name="Directory of the sets", path="/var/backups/storekeeper", user="root", mode="700")
    """
    there = _at(path, among)
    if there is not None and there.kind == "directory" and _is(there, user, mode, group):
        host.noop(f"directory {path} is as declared")
        return
    yield from files.directory._inner(path=path, user=user, group=group, mode=mode)


@operation()
def put(text: str, dest: str, user: str, mode: str, among: Sequence[str] = ()) -> Commands:
    """
    Have a file that holds this text.

    + text: what it holds
    + dest: where it is
    + user: its owner
    + mode: its mode, such as ``600``
    + among: all paths that are looked at together

    **Example:**

    .. code:: python

        entries.put(name="Stack file", text=stack.text, dest="/etc/storekeeper/stacks/maestro.yml", user="root", mode="600")
    """
    there, digest = _at(dest, among), hashlib.sha256(text.encode()).hexdigest()
    if there is not None and there.digest == digest and _is(there, user, mode, None):
        host.noop(f"file {dest} is as declared")
        return
    yield from files.put._inner(src=StringIO(text), dest=dest, user=user, mode=mode)


@operation()
def template(src: str, dest: str, user: str, mode: str, among: Sequence[str] = (), **data: Any) -> Commands:
    """
    Have a file that a template of this machine makes.

    + src: the template
    + dest: where it is
    + user: its owner
    + mode: its mode, such as ``600``
    + among: all paths that are looked at together
    + data: what the template is told

    **Example:**

    .. code:: python

        entries.template(name="Rotation", src="templates/logrotate.j2", dest="/etc/logrotate.d/app", user="root", mode="644", log=log)
    """
    yield from put._inner(text=get_template(src).render({"host": host, **data}), dest=dest, user=user, mode=mode, among=among)


def _at(path: str, among: Sequence[str]) -> Entry | None:
    """What stands there; None where that could not be told."""
    if path not in among:
        return _looked((path,)).get(path)
    seen = _seen.setdefault(host.state, {})
    key = host.name, tuple(among)
    if path not in seen.get(key, ()):
        seen[key] = _looked(key[1])
    return seen[key].pop(path, None)


def _looked(paths: tuple[str, ...]) -> dict[str, Entry]:
    return dict(get_fact(host.state, host, Entries, kwargs={"paths": paths}, apply_failed_hosts=False) or {})


def _is(there: Entry, user: str, mode: str, group: str | None) -> bool:
    return (there.user, there.mode) == (user, int(mode, 8)) and group in (None, there.group)
