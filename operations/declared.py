"""What an inventory declares for a host, checked on the control machine before any server is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyinfra.api import Host

from storekeeper.outcomes import Refused
from storekeeper.stack.loader import check_text
from storekeeper.stack.model import Stack


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
    declared: Mapping[str, str | Path] = target.data.get("storekeeper_stacks", {})
    for name, source in sorted(declared.items()):
        text, label = _read(source, name)
        try:
            stack = check_text(text, label)
        except Refused as refusal:
            problems.append(refusal.message)
            continue
        if stack.stack != name:
            problems.append(f"{label}: declares the stack {stack.stack!r}, the inventory calls it {name!r}")
        found.append(DeclaredStack(stack, text))
    if problems:
        raise SystemExit("\n".join(problems))
    return found


def chosen_stacks(target: Host) -> list[str]:
    """The names of the stacks an operating deploy works on: `--data stack=NAME`, else all that the host has."""
    names = sorted(target.data.get("storekeeper_stacks", {}))
    wanted = target.data.get("stack")
    if wanted is None:
        return names
    if wanted not in names:
        raise SystemExit(f"{target.name} has no stack {wanted!r}; it has {', '.join(names) or 'none'}")
    return [wanted]


def flag(target: Host, key: str) -> bool:
    """A yes or no of `--data`. Raises SystemExit for any other word."""
    value = str(target.data.get(key, "no")).lower()
    if value in ("yes", "true", "1"):
        return True
    if value in ("no", "false", "0"):
        return False
    raise SystemExit(f"--data {key}= takes yes or no, not {value!r}")


def names(target: Host, key: str) -> tuple[str, ...]:
    """The names in a `--data` value, separated by commas."""
    value = str(target.data.get(key) or "")
    return tuple(name for name in value.split(",") if name)


def _read(source: str | Path, name: str) -> tuple[str, str]:
    if isinstance(source, Path) or "\n" not in source:
        path = Path(source)
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except OSError as error:
            raise SystemExit(f"the stack file of {name} could not be read: {error.strerror}: {path}") from error
    return source, f"stack {name}"
