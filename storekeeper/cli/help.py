"""The help of the program and of each verb, made from the catalogue."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from storekeeper.cli.catalogue import GLOBAL_OPTIONS, VERBS, Verb

_WIDTH = 80
_LONGEST_WORD = 28


def of_program() -> str:
    """At most 40 lines."""
    lines = [
        "usage: storekeeper [OPTIONS] VERB [STACK] ...",
        "",
        "Backs up, proves and restores every store of a stack to one consistent point.",
        "",
        "verbs:",
    ]
    width = max(len(verb.name) for verb in VERBS) + 2
    lines += [f"  {verb.name.ljust(width)}{_first_words(verb.sentence, _WIDTH - 2 - width)}" for verb in VERBS]
    lines += ["", "options, before or after the verb:"]
    lines += _two_columns((option.shown, option.help) for option in GLOBAL_OPTIONS)
    lines += _two_columns([("-V, --version", "print the version")])
    lines += ["", "`storekeeper VERB --help` explains a verb, with its exit codes and examples."]
    return "\n".join(lines) + "\n"


def of_verb(verb: Verb) -> str:
    lines = textwrap.wrap(f"usage: {verb.usage}", _WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False, break_long_words=False)
    lines += ["", *textwrap.wrap(verb.sentence, _WIDTH)]
    if verb.arguments:
        lines += ["", "arguments:", *_two_columns((argument.name.upper(), argument.help) for argument in verb.arguments)]
    options = [(option.shown, option.help + (" (may be repeated)" if option.repeats else "")) for option in verb.options]
    lines += ["", "options:", *_two_columns([*options, ("--config, --json, --color, --quiet, --debug", "as for the program")])]
    lines += ["", "exit codes:", *_two_columns((str(code).rjust(3), meaning) for code, meaning in sorted(verb.exits.items()))]
    lines += ["", "examples:"]
    for command, purpose in verb.examples:
        lines += [f"  # {purpose}", f"  {command}"]
    return "\n".join(lines) + "\n"


def _two_columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    found = list(rows)
    width = max((len(word) for word, _ in found if len(word) <= _LONGEST_WORD), default=0) + 2
    lines = []
    for word, meaning in found:
        explained = textwrap.wrap(meaning, _WIDTH - 2 - width, break_on_hyphens=False)
        if len(word) > _LONGEST_WORD:
            lines.append(f"  {word}")
            lines += [f"  {' ' * width}{line}" for line in explained]
            continue
        lines.append(f"  {word.ljust(width)}{explained[0]}")
        lines += [f"  {' ' * width}{line}" for line in explained[1:]]
    return lines


def _first_words(sentence: str, width: int) -> str:
    """The sentence without its full stop, cut at a comma where it is too long for one line."""
    text = sentence.rstrip(".")
    while len(text) > width and "," in text:
        text = text[: text.rindex(",")]
    return text if len(text) <= width else text[: width - 3] + "..."
