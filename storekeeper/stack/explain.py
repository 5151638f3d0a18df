"""What the model found wrong, said as a person would: where it stands, what was expected, what was found, what was meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from storekeeper.stack.document import Document
from storekeeper.stack.mistakes import Mistake, Path, did_you_mean, quoted, suggestion
from storekeeper.stack.model import CONTRADICTIONS, MISSING, Stack
from storekeeper.stack.schedule import VERBS
from storekeeper.stack.types import fields_of

KINDS = ("postgresql", "sqlite", "chroma", "files")
LATER_KINDS = ("neo4j",)
LATER_STACK_KEYS = (
    "thresholds", "probes", "pools", "sample", "notify", "copies",
)  # fmt: skip
LATER_RUNTIMES = ("docker", "compose")
_LATER = "is not known to this version of storekeeper"

_SHAPES = {
    "password": "{file: PATH} or {env: NAME}",
    "runtime": "{systemd: UNIT}",
    "services": "a list such as [{systemd: UNIT}]",
    "stores": "a mapping of names to stores",
    "admin": "{user: ROLE}",
    "keep": "a mapping such as {daily: 7}",
    "after_reset": "a list such as [{run: [alembic, upgrade, head], user: maestro}]",
    "reset.keep": "a mapping such as {main: [alembic_version]}",
    "run": "a list of words such as [alembic, upgrade, head]",
    "load": "a mapping such as {nice: 10, max_rate: 50MB}",
}
_TYPES: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_SECRET_WORDS = ("pass", "secret", "token", "key", "url", "ping", "admin")


def explained(document: Document, error: ValidationError) -> list[Mistake]:
    """All mistakes of a document, one for each: what only follows from another mistake is left out."""
    details = [(_path(document, each["loc"]), each) for each in error.errors(include_url=False)]
    meant = {(*path[:-1], near) for path, each in details if each["type"] == "extra_forbidden" and (near := _meant(document, path))}
    return [mistake for path, each in details if not _follows(document, path, each, meant) for mistake in _explain(document, path, each)]


def _path(document: Document, loc: Sequence[str | int]) -> Path:
    """The place in the file: pydantic also names the kind that it chose, and numbers the entries of a short schedule."""
    path = tuple(loc)
    if len(path) > 2 and path[0] == "stores" and path[2] in KINDS:
        path = (*path[:2], *path[3:])
    schedule = document.plain.get("schedule")
    if len(path) > 1 and path[0] == "schedule" and isinstance(path[1], int) and isinstance(schedule, dict):
        verb = list(schedule)[path[1]]
        path = ("schedule", verb, "[key]") if path[-1] == "verb" else ("schedule", verb)
    return path


def _follows(document: Document, path: Path, each: ErrorDetails, meant: set[Path]) -> bool:
    """Whether this only follows from another mistake: the missing key is the mistyped one, or that of another version."""
    if each["type"] == MISSING:
        return (*path, each["ctx"]["key"]) in document.found
    above = path[:-1]
    keys = _keys(document, above)
    if each["type"] == "missing":
        return path in meant or path in document.found or (path[-1] == "systemd" and any(key in LATER_RUNTIMES for key in keys))
    return path[-1:] == ("service",) and "compose" in keys


def _explain(document: Document, path: Path, each: ErrorDetails) -> list[Mistake]:
    kind = each["type"]
    if kind == CONTRADICTIONS:
        return [document.mistake(tuple(where), sentence, hint=_store_meant(document, where)) for where, sentence in each["ctx"]["found"]]
    if kind == "extra_forbidden":
        return [_unknown_key(document, path)]
    if kind == "missing":
        return [document.mistake(path[:-1], f"missing key {quoted(str(path[-1]))}", key=True)]
    if kind == MISSING:
        return [document.mistake(path, f"missing key {quoted(each['ctx']['key'])}", key=True)]
    if kind == "union_tag_not_found":
        near = suggestion("kind", [key for key in _keys(document, path) if key not in known_keys(document, path)])
        return [
            document.mistake(
                path,
                f'missing key "kind": one of {", ".join(KINDS)}',
                key=True,
                hint=near and f'found {quoted(near)}: did you mean "kind"?',
            )
        ]
    if kind == "union_tag_invalid":
        return [_unknown_kind(document, (*path, "kind"))]
    if path[-1:] == ("[key]",):
        return [_wrong_key(document, path[:-1], each)]
    return [document.mistake(path, _wrong_value(document, path, each), hint=_remedy(document, path, each))]


def _unknown_key(document: Document, path: Path) -> Mistake:
    key, above = str(path[-1]), path[:-1]
    later = LATER_STACK_KEYS if not above else LATER_RUNTIMES if "systemd" in known_keys(document, above) else ()
    if key in later:
        return document.mistake(above, f"{quoted(key)} {_LATER}", at=path, key=True)
    return document.mistake(above, f"unknown key {quoted(key)}", at=path, key=True, hint=did_you_mean(_meant(document, path)))


def _unknown_kind(document: Document, path: Path) -> Mistake:
    found = document.found[path].text
    if found in LATER_KINDS:
        return document.mistake(path, f"{quoted(found)} {_LATER}")
    message = f"expected one of {', '.join(KINDS)}, found {_found(document, path)}"
    return document.mistake(path, message, hint=did_you_mean(suggestion(found or "", KINDS)))


def _wrong_key(document: Document, path: Path, each: ErrorDetails) -> Mistake:
    hint = None
    if path[0] == "schedule":
        hint = did_you_mean(suggestion(str(path[-1]), VERBS))
    message = _with_found(each, _expected(path[:-1], each), quoted(str(path[-1])))
    return document.mistake(path[:-1], message, at=path, key=True, hint=hint)


def _wrong_value(document: Document, path: Path, each: ErrorDetails) -> str:
    if each["type"] == "int_type" and isinstance(_value(document, path), float):
        return f"expected a whole number, found {_found(document, path)}"
    return _with_found(each, _expected(path, each), _found(document, path))


def _with_found(each: ErrorDetails, expected: str, found: str) -> str:
    """A sentence of our own (a value_error) says what was found where that helps."""
    return expected if each["type"] in ("value_error", "too_short", "too_long") else f"{expected}, found {found}"


def _expected(path: Path, each: ErrorDetails) -> str:
    kind, context = each["type"], each.get("ctx", {})
    if kind in _TYPES:
        step = "reset.keep" if path == ("reset", "keep") else path[-1] if path else ""
        shape = _SHAPES.get(str(step))
        return f"expected {shape or _TYPES[kind]}"
    said: Mapping[str, Callable[[], str]] = {
        "greater_than_equal": lambda: f"expected {int(context['ge'])} or more",
        "less_than_equal": lambda: f"expected at most {int(context['le'])}",
        "too_short": lambda: "expected at least one",
        "too_long": lambda: f"expected at most {context['max_length']}, found {context['actual_length']}",
        "literal_error": lambda: f"expected one of {context['expected'].replace(' or ', ', ')}".replace("'", ""),
        "value_error": lambda: str(context["error"]),
    }
    return said[kind]() if kind in said else each["msg"]


def _remedy(document: Document, path: Path, each: ErrorDetails) -> str | None:
    if path[0] == "schedule" and path[-1] == "verb":
        return did_you_mean(suggestion(document.found[path].text or "", VERBS))
    value = _value(document, path)
    if each["type"] == "string_type" and isinstance(value, bool | int | float):
        return "put it in quotes"
    return None


def _found(document: Document, path: Path) -> str:
    """What stands there, unless it may be a secret: then only what kind of thing it is."""
    value, text = _value(document, path), document.found[path].text
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    if path[0] != "consistency" and any(word in str(step).lower() for step in path for word in _SECRET_WORDS):
        return "something else"
    if isinstance(value, bool | int | float):
        return f"the {'truth value' if isinstance(value, bool) else 'number'} {(text or '')[:40]}"
    return quoted(text or "")


def _meant(document: Document, path: Path) -> str | None:
    there = _keys(document, path[:-1])
    return suggestion(str(path[-1]), [key for key in known_keys(document, path[:-1]) if key not in there])


def _store_meant(document: Document, path: Path) -> str | None:
    """Where a rule or a query names a store that there is not."""
    if path[0] not in ("consistency", "queries", "migration") or path[-1] != "store":
        return None
    return did_you_mean(suggestion(document.found[path].text or "", _keys(document, ("stores",))))


def _keys(document: Document, path: Path) -> tuple[str, ...]:
    value = _value(document, path)
    return tuple(value) if isinstance(value, dict) else ()


def _value(document: Document, path: Path) -> object:
    value: object = document.plain
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, tuple) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def known_keys(document: Document, path: Path) -> tuple[str, ...]:
    """The keys that the model knows at a place; those of the declared kind where stores differ."""
    models: list[type[BaseModel]] = [Stack]
    named = False  # the next step is a name that the person chose
    for step in path:
        if named or isinstance(step, int):
            named = False
            continue
        annotations = [field.annotation for model in models if (field := fields_of(model).get(step)) is not None]
        named = any(get_origin(annotation) is dict for annotation in annotations)
        models = [model for annotation in annotations for model in _models(annotation)]
    chosen = _of_kind(models, _value(document, (*path, "kind")))
    return tuple(dict.fromkeys(name for model in chosen for name in fields_of(model)))


def _of_kind(models: list[type[BaseModel]], kind: object) -> list[type[BaseModel]]:
    declared = [model for model in models if "kind" in model.model_fields and kind in get_args(model.model_fields["kind"].annotation)]
    return declared or models


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
