"""The file `storekeeper.yml`: paths, by the keys that the program knows."""

from __future__ import annotations

from pathlib import Path

from storekeeper.stack.document import Plain, read_document
from storekeeper.stack.mistakes import StackFileErrors, did_you_mean, quoted, suggestion
from storekeeper.stack.source import read_source


def read_settings(file: Path, known: tuple[str, ...]) -> dict[str, str]:
    """What the file says, as absolute paths. Raises StackFileErrors with all mistakes, Refused when it cannot be read."""
    document = read_document(read_source(file), str(file), may_be_empty=True)
    mistakes = list(document.mistakes)
    said: dict[str, str] = {}
    for key, value in document.plain.items():
        if key not in known:
            hint = did_you_mean(suggestion(key, known))
            mistakes.append(document.mistake((), f"unknown key {quoted(key)}", at=(key,), key=True, hint=hint))
        elif isinstance(value, str) and _is_absolute(value):
            said[key] = value
        else:
            mistakes.append(document.mistake((key,), f"expected an absolute path without '..', found {_shown(value)}"))
    if mistakes:
        raise StackFileErrors(mistakes)
    return said


def _is_absolute(text: str) -> bool:
    path = Path(text)
    return path.is_absolute() and ".." not in path.parts and path.name != "" and text.isprintable()


def _shown(value: Plain) -> str:
    return quoted(value) if isinstance(value, str) else "something else"
