"""From the text of a stack file to a checked `Stack`, or to all that is wrong with it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from storekeeper.stack.document import read_document
from storekeeper.stack.explain import explained
from storekeeper.stack.mistakes import Mistake, StackFileErrors, quoted
from storekeeper.stack.model import Stack
from storekeeper.stack.source import read_source

__all__ = ["StackFileErrors", "check_text", "load_stack"]


def load_stack(path: Path) -> Stack:
    """The stack that a file declares. Raises StackFileErrors with all mistakes, Refused when the file cannot be used at all."""
    return check_bytes(read_source(path), str(path), path.stem)


def check_text(text: str, label: str) -> Stack:
    """The stack that a text declares; `label` is what mistakes call the file. Raises StackFileErrors with all mistakes."""
    return check_bytes(text.encode(errors="surrogatepass"), label, None)


def check_bytes(data: bytes, label: str, file_name: str | None) -> Stack:
    """As `check_text`; the stack's name must be that of its file where there is one."""
    document = read_document(data, label)
    mistakes: list[Mistake] = list(document.mistakes)
    try:
        stack = Stack.model_validate(document.plain)
    except ValidationError as error:
        mistakes += explained(document, error)
        stack = None
    name = document.plain.get("stack")
    if file_name is not None and isinstance(name, str) and name != file_name:
        mistakes.append(document.mistake(("stack",), f"expected {quoted(file_name)} as the file is named, found {quoted(name)}"))
    if mistakes or stack is None:
        raise StackFileErrors(_one_a_place(mistakes))
    return stack


def _one_a_place(mistakes: list[Mistake]) -> list[Mistake]:
    """One mistake shows once, even where both the form of the file and its meaning have something to say about it."""
    seen: dict[tuple[int, int], Mistake] = {}
    for mistake in mistakes:
        seen.setdefault((mistake.line, mistake.column), mistake)
    return list(seen.values())
