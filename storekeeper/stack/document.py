"""A YAML file as plain values, with the line and column of each, and without what YAML can do beyond plain values.

Scalars are text, whole numbers, decimal numbers and truth values; mappings have text keys, each once; sequences become tuples.
Anchors, aliases, tags and merge keys are refused: what stands in a file is what it means.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml

from storekeeper.stack.mistakes import Mistake, Path, StackFileErrors, Step, quoted
from storekeeper.stack.source import LARGEST_FILE

Plain = str | int | float | bool | tuple["Plain", ...] | dict[str, "Plain"]

_DEEPEST = 16
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_NOTHING = "tag:yaml.org,2002:null"
_KINDS = {"tag:yaml.org,2002:bool": "the truth value", "tag:yaml.org,2002:int": "the number", "tag:yaml.org,2002:float": "the number"}


@dataclass(frozen=True)
class Found:
    """A value as it stands in the file: where its key and itself begin, and the text of a scalar."""

    key: tuple[int, int]
    value: tuple[int, int]
    text: str | None


@dataclass
class Document:
    """`plain` is the file's mapping; `mistakes` are those of its form, after which the values may still be checked."""

    label: str
    plain: dict[str, Plain]
    mistakes: list[Mistake] = field(default_factory=list)
    found: dict[Path, Found] = field(default_factory=dict)

    def mistake(self, path: Path, message: str, *, hint: str | None = None, at: Path | None = None, key: bool = False) -> Mistake:
        """A mistake about `path`, placed at the value of `at` (default: `path`) or at its key; at what is above it where it is missing."""
        place = path if at is None else at
        while place not in self.found:
            place, key = place[:-1], True
        line, column = self.found[place].key if key else self.found[place].value
        return Mistake(self.label, line, column, path, message, hint)


def read_document(data: bytes, label: str, *, may_be_empty: bool = False) -> Document:
    """Raises StackFileErrors when the bytes are no YAML mapping at all."""
    if len(data) > LARGEST_FILE:
        raise StackFileErrors([Mistake(label, 1, 1, (), f"the file has {len(data)} bytes, at most {LARGEST_FILE} are read")])
    try:
        root = _Loader(data.decode("utf-8-sig")).get_single_node()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise StackFileErrors([Mistake(label, line, 1, (), "the file is not UTF-8 text")]) from error
    except _MoreThanPlainError as error:
        raise StackFileErrors([_of_form(label, error, "")]) from error
    except yaml.MarkedYAMLError as error:
        raise StackFileErrors([_of_form(label, error, "this is not YAML: ")]) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise StackFileErrors([Mistake(label, 1, 1, (), "the file holds characters or escapes that YAML does not allow")]) from error
    nothing = root is None or root.tag == _NOTHING
    if nothing and may_be_empty:
        return Document(label, {})
    if not isinstance(root, yaml.MappingNode):
        found = "nothing" if root is None or nothing else described(root)
        raise StackFileErrors([Mistake(label, 1, 1, (), f"expected a mapping of keys to values, found {found}")])
    document = Document(label, {})
    document.found[()] = Found((1, 1), _place(root.start_mark), None)
    document.plain = _mapping(document, root, ())
    return document


def described(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        kind = _KINDS.get(node.tag)
        return f"{kind} {node.value[:40]}" if kind else quoted(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


class _MoreThanPlainError(yaml.MarkedYAMLError):
    """YAML that is more than plain values."""


class _Loader(yaml.SafeLoader):
    """Composes nodes only, and refuses what is more than plain values."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        refusal = self._refusal(event)
        if refusal is not None:
            raise _MoreThanPlainError(problem=refusal, problem_mark=event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)  # type: ignore[arg-type]
        finally:
            self._depth -= 1

    def _refusal(self, event: yaml.Event) -> str | None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            return "anchors and aliases (& and *) are not read; quote a text that begins with them"
        if getattr(event, "tag", None) is not None:
            return "tags (!) are not read; quote a text that begins with one"
        return "values are nested too deeply" if self._depth == _DEEPEST else None


def _mapping(document: Document, node: yaml.MappingNode, path: Path) -> dict[str, Plain]:
    plain: dict[str, Plain] = {}
    for key, value in node.value:
        name = _key(document, key, path)
        if name is None:
            continue
        here = (*path, name)
        if here in document.found:
            first = document.found[here].key[0]
            document.mistakes.append(
                Mistake(document.label, *_place(key.start_mark), path, f"key {quoted(name)} stands twice, first in line {first}")
            )
            continue
        document.found[here] = _found(key, value)
        read = _value(document, value, here)
        if read is not None:
            plain[name] = read
    return plain


def _key(document: Document, node: yaml.Node, path: Path) -> str | None:
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _KINDS:
            message = f"expected text as a key, found {described(node)}"
            document.mistakes.append(Mistake(document.label, *_place(node.start_mark), (*path, node.value), message, "put it in quotes"))
        return str(node.value)
    document.mistakes.append(Mistake(document.label, *_place(node.start_mark), path, f"expected text as a key, found {described(node)}"))
    return None


def _value(document: Document, node: yaml.Node, path: Path) -> Plain | None:
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, node, path)
    if isinstance(node, yaml.SequenceNode):
        return tuple(_items(document, node, path))
    read = _scalar(node)
    if read is None:
        document.mistakes.append(document.mistake(path, "expected a value, found nothing"))
    return read


def _items(document: Document, node: yaml.SequenceNode, path: Path) -> list[Plain]:
    items: list[Plain] = []
    for index, item in enumerate(node.value):
        here: tuple[Step, ...] = (*path, index)
        document.found[here] = _found(item, item)
        read = _value(document, item, here)
        items.append("" if read is None else read)
    return items


def _scalar(node: yaml.Node) -> str | int | float | bool | None:
    text = str(node.value)
    if node.tag == _NOTHING:
        return None
    if node.tag == "tag:yaml.org,2002:bool":
        return text.lower() in ("true", "yes", "on")
    if node.tag == "tag:yaml.org,2002:int" and _NUMBER.fullmatch(text):
        return int(text)
    if node.tag == "tag:yaml.org,2002:float" and _DECIMAL.fullmatch(text):
        return float(text)
    return text


def _found(key: yaml.Node, value: yaml.Node) -> Found:
    text = value.value if isinstance(value, yaml.ScalarNode) else None
    return Found(_place(key.start_mark), _place(value.start_mark), text)


def _place(mark: yaml.Mark) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _of_form(label: str, error: yaml.MarkedYAMLError, what: str) -> Mistake:
    mark = error.problem_mark or error.context_mark
    line, column = _place(mark) if mark else (1, 1)
    said = error.problem or error.context or "it cannot be read"
    if said.startswith("but ") and error.context:
        said = f"{error.context}, {said}"
    return Mistake(label, line, column, (), what + said)
