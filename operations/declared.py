"""What an inventory declares for a host, checked on the control machine before any server is touched."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pyinfra import logger
from pyinfra.api import Host, OperationValueError

from storekeeper.outcomes import Refused
from storekeeper.stack.loader import check_text
from storekeeper.stack.model import Stack
from storekeeper.stack.types import SecretReference

from . import layout, secrets
from .postgresql import model
from .program import CONFIG, RELEASES, one_line
from .program import value as word
from .release import PYTHON
from .sets import span

# What holds where an inventory says nothing: `inventories/group_data/all.py` explains each.
DEFAULTS = {
    "storekeeper_releases": RELEASES,
    "storekeeper_python": PYTHON,
    "storekeeper_config": CONFIG,
    "storekeeper_repository": "/var/backups/storekeeper",
    "storekeeper_state": "/var/lib/storekeeper",
    "storekeeper_scratch": "/var/tmp",  # noqa: S108 only a parent of private directories
    "storekeeper_cron": "/etc/cron.d",
    "storekeeper_units": "/etc/systemd/system",
    "storekeeper_user": "root",
}

_SIGNS = {"storekeeper_releases": r"[A-Za-z0-9._+@/-]"}  # pip reads it too, and the first line of each program

_NOT_GIVEN = object()
Found = TypeVar("Found")


@dataclass(frozen=True)
class DeclaredStack:
    """A stack file that is valid: its model, and the text that goes to the host unchanged."""

    stack: Stack
    text: str

    @property
    def name(self) -> str:
        return self.stack.stack


def stacks(target: Host) -> list[DeclaredStack]:
    """The stacks of host data `storekeeper_stacks`, sorted by name. Raises SystemExit with every problem of every file."""
    found, problems = [], []
    for name, source in sorted(_declared(target).items()):
        text, label = _read(source, name)
        try:
            stack = check_text(text, label)
        except Refused as refusal:
            problems.append(refusal.message)
            continue
        if stack.stack != name:
            problems.append(f"{label}: declares the stack {stack.stack!r}, the inventory calls it {name!r:.80}")
        found.append(DeclaredStack(stack, text))
    if problems:
        raise SystemExit("\n".join(problems))
    return found


def chosen_stacks(target: Host) -> list[str]:
    """The names of the stacks an operating deploy works on: `--data stack=NAME`, else all that the host has."""
    names = sorted(_declared(target))
    wanted = text(target, "stack")
    if wanted is None:
        if not names:
            target.log_styled("no stack is declared for this host: nothing is done", fg="yellow", log_func=logger.warning)
        return names
    if wanted not in names:
        raise SystemExit(f"{target.name} has no stack {wanted!r:.80}; it has {', '.join(names) or 'none'}")
    return [wanted]


def compared_stacks(target: Host) -> list[str]:
    """The names of those of `chosen_stacks` that declare rules; with `--data rule=NAME` of those that declare this one.

    A host without rules is told so. Raises SystemExit for a rule that there is not, and for a stack that was asked for and declares none.
    """
    chosen = chosen_stacks(target)
    rules = {each.name: tuple(each.stack.consistency) for each in stacks(target) if each.name in chosen and each.stack.consistency}
    wanted = text(target, "rule")
    if wanted is None and rules:
        return list(rules)
    if wanted is not None and (having := [name for name, declared in rules.items() if wanted in declared]):
        return having
    if wanted is not None:
        known = ", ".join(sorted({rule for declared in rules.values() for rule in declared}))
        raise SystemExit(f"{target.name} has no rule {wanted!r:.80}; it has {known or 'none'}")
    if text(target, "stack") is not None:
        raise SystemExit(f"{target.name}: {chosen[0]} declares no rule, so nothing says what its stores must agree on")
    if chosen:
        target.log_styled("no stack of this host declares a rule: nothing is done", fg="yellow", log_func=logger.warning)
    return []


def confirmed(target: Host, stacks: list[str]) -> tuple[str, str]:
    """The one stack that live data of is changed, and `--data confirm=STACK@HOST`. Raises SystemExit where either is missing."""
    if len(stacks) != 1:
        raise SystemExit(f"{target.name}: this works on one stack: pass --data stack=NAME (found {', '.join(stacks) or 'none'})")
    confirm = text(target, "confirm")
    if confirm is None:
        raise SystemExit(f"{target.name}: live data would be changed: pass --data confirm={stacks[0]}@HOST, with the host's own name")
    return stacks[0], confirm


def number(target: Host, key: str) -> int | None:
    """A whole number of `--data`; None when it was not given. Raises SystemExit for anything else."""
    given = text(target, key)
    if given is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", given):
        raise SystemExit(f"--data {key}= takes a whole number, not {given!r:.80}")
    return int(given)


def place(target: Host, key: str) -> str:
    """A directory that an inventory declares, else its default. Raises SystemExit for anything but a plain absolute path."""
    given = target.data.get(key, DEFAULTS.get(key))
    signs = _SIGNS.get(key, r"[^\x00-\x1f\x7f-\x9f]")
    if not isinstance(given, str) or not re.fullmatch(f"/{signs}{{1,4000}}", given) or PurePosixPath(given).parts.count(".."):
        plain = " of letters, digits and ._+@-" if key in _SIGNS else ""
        raise SystemExit(f"{target.name}: {key} takes an absolute path{plain}, not {given!r:.80}")
    return given.rstrip("/")


def askable(target: Host) -> None:
    """Raises SystemExit for a host whose program could not be asked how it is, by what is declared for it."""
    ground(target)
    given = target.data.get("storekeeper_patience", 1)
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise SystemExit(f"{target.name}: storekeeper_patience takes a number of seconds, not {given!r:.80}")


def ground(target: Host) -> dict[str, Any]:
    """What `preflight.ready` asks of a host: its places with room, its interpreter, and root where the program runs as root."""
    return {
        "places": [
            place(target, key) for key in ("storekeeper_config", "storekeeper_state", "storekeeper_repository", "storekeeper_scratch")
        ],
        "python": place(target, "storekeeper_python") if brings_program(target) else None,
        "root": user(target) == "root",
    }


def postgresql(target: Host) -> model.Server | None:
    """The PostgreSQL of host data `storekeeper_postgresql`; None where none is declared. Raises SystemExit with every mistake."""
    given = target.data.get("storekeeper_postgresql", None)
    return None if given is None else _checked(target, lambda: model.read(given, "storekeeper_postgresql"))


def passwords(target: Host) -> dict[str, str]:
    """The passwords of the declared roles, read from their references. Raises SystemExit that names what could not be read."""
    server = postgresql(target)
    roles = server.roles if server is not None else {}
    return {name: _secret(target, role.password, f"the password of {name}") for name, role in roles.items() if role.password is not None}


def put_secrets(target: Host) -> dict[str, str]:
    """The secrets of host data `storekeeper_secrets` that go to the host, by the name of their file, read from their references."""
    given = target.data.get("storekeeper_secrets", {})
    references = _checked(target, lambda: layout.named(SecretReference, given, "storekeeper_secrets", layout.SECRETS))
    return {name: _secret(target, reference, f"the secret {name}") for name, reference in references.items()}


def _secret(target: Host, reference: SecretReference, label: str) -> str:
    return _checked(target, lambda: secrets.read(reference, label))


def provisions(target: Host) -> bool:
    """Whether anything that `deploys/provision.py` makes is declared for a host."""
    return any(target.data.get(f"storekeeper_{key}") for key in ("postgresql", "users", "directories"))


def users(target: Host) -> dict[str, layout.User]:
    """The users of services: host data `storekeeper_users`."""
    return _checked(target, lambda: layout.named(layout.User, target.data.get("storekeeper_users", {}), "storekeeper_users", layout.USERS))


def directories(target: Host) -> dict[str, layout.Directory]:
    """The directories of host data `storekeeper_directories`, each before those in it."""
    given = target.data.get("storekeeper_directories", {})
    return _checked(target, lambda: layout.named(layout.Directory, given, "storekeeper_directories", layout.PATHS))


def logs(target: Host) -> dict[str, layout.Log]:
    """What is rotated: host data `storekeeper_logs`."""
    return _checked(target, lambda: layout.named(layout.Log, target.data.get("storekeeper_logs", {}), "storekeeper_logs", layout.NAMES))


def _checked(target: Host, read: Callable[[], Found]) -> Found:
    try:
        return read()
    except ValueError as error:
        raise SystemExit("\n".join(f"{target.name}: {line}" for line in str(error).splitlines())) from None


def brings_program(target: Host) -> bool:
    """Whether the program is put on the host as a release: not where an inventory says where it is already.

    Raises SystemExit where a release is asked for all the same: it would never be used.
    """
    is_elsewhere = target.data.get("storekeeper_program", _NOT_GIVEN) is not _NOT_GIVEN
    if is_elsewhere:
        place(target, "storekeeper_program")
    if is_elsewhere and text(target, "storekeeper_release") is not None:
        raise SystemExit(f"{target.name}: storekeeper_program says where the program is, so no storekeeper_release can be gone to")
    return not is_elsewhere


def user(target: Host) -> str:
    """The user that the program runs as. Raises SystemExit for what cannot be a user's name: it stands on a line of cron's."""
    given = target.data.get("storekeeper_user", DEFAULTS["storekeeper_user"])
    if not isinstance(given, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", given):
        raise SystemExit(f"{target.name}: storekeeper_user takes the name of a user, not {given!r:.80}")
    return given


def sudo(target: Host) -> bool:
    """Whether everything on the host is done with sudo: host data `storekeeper_sudo`."""
    return flag(target, "storekeeper_sudo")


def flag(target: Host, key: str) -> bool:
    """A yes or no of `--data`. Raises SystemExit for any other word."""
    value = str(target.data.get(key, "no")).lower()
    if value in ("yes", "true", "1"):
        return True
    if value in ("no", "false", "0"):
        return False
    raise SystemExit(f"--data {key}= takes yes or no, not {value!r:.80}")


def text(target: Host, key: str) -> str | None:
    """A word of `--data`; None when it was not given. Raises SystemExit for an empty one, and for one that is no word."""
    given = target.data.get(key, _NOT_GIVEN)
    if given is _NOT_GIVEN:
        return None
    if not isinstance(given, str) and (typed := _typed(key)) is not None:
        given = typed
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or not given:
        raise SystemExit(f"--data {key}= takes a word, not {given!r:.80}")
    try:
        return word(f"--data {key}=", given)
    except OperationValueError as error:
        raise SystemExit(f"{error}") from error


def _typed(key: str) -> str | None:
    """What stands after `--data key=` on this run's command line, the last where there are several: pyinfra makes a number of 0042 and of
    1e5, and what no number has is lost."""
    words = [*sys.argv[1:], ""]
    pairs = [following for word, following in pairwise(words) if word == "--data"]
    pairs += [word.removeprefix("--data=") for word in words if word.startswith("--data=")]
    return next((value for name, sign, value in (pair.partition("=") for pair in reversed(pairs)) if sign and name == key), None)


def chosen_set(target: Host) -> str | None:
    """The set of `--data set=SET`. pyinfra reads a time such as 20250109_030000 as a number, which is undone here."""
    given = text(target, "set")
    is_time = isinstance(target.data.get("set"), int) and given is not None and len(given) == 14
    return f"{given[:8]}_{given[8:]}" if given is not None and is_time else given


def within(target: Host) -> str | None:
    """The length of time of `--data within=26h`. Raises SystemExit for what is none."""
    given = text(target, "within")
    if given is not None:
        try:
            span(given)
        except OperationValueError as error:
            raise SystemExit(f"--data within=: {error}") from error
    return given


def names(target: Host, key: str) -> tuple[str, ...]:
    """The names in a `--data` value, separated by commas."""
    return tuple(name for name in (text(target, key) or "").split(",") if name)


def _declared(target: Host) -> Mapping[str, str | Path]:
    found = target.data.get("storekeeper_stacks", {})
    if not isinstance(found, Mapping):
        raise SystemExit(f"{target.name}: storekeeper_stacks takes names, each with its stack file, not {found!r:.80}")
    return found


def _read(source: str | Path, name: str) -> tuple[str, str]:
    if isinstance(source, Path) or "\n" not in source:
        path = Path(source)
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise SystemExit(f"the stack file of {name!r:.80} could not be read: {why}: {str(path)!r:.400}") from error
    return source, f"stack {one_line(str(name))[:80]}"
