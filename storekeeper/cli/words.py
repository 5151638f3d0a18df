"""The words of one command, read: which verb, about what, with which options."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from storekeeper.cli.catalogue import BY_NAME, GLOBAL_OPTIONS, Argument, Option, Takes, Verb
from storekeeper.outcomes import Refused

DEFAULT_CONFIG = "/etc/storekeeper"


class Usage(Refused):
    """The words make no sense; `next` is the nearest that would."""


class HelpAsked(Exception):
    """Somebody asked for help instead; `verb` is None for the program."""

    def __init__(self, verb: Verb | None) -> None:
        super().__init__()
        self.verb = verb


class VersionAsked(Exception):
    """Somebody asked which version this is."""


@dataclass(frozen=True)
class Globals:
    """What is taken before and after the verb."""

    config: Path = Path(DEFAULT_CONFIG)
    json: bool = False
    color: str = "auto"
    quiet: bool = False
    spread: int = 0
    job: bool = False
    heard: bool = False
    debug: bool = False

    @property
    def unusual_config(self) -> Path | None:
        """The configuration, where it is not the one that is used without a word."""
        return None if str(self.config) == DEFAULT_CONFIG else self.config


@dataclass(frozen=True)
class Words:
    """One command. What a verb does not take has its default here."""

    verb: Verb
    options: Globals
    stack: str | None = None
    set: str | None = None
    shell: str | None = None
    back: bool = False
    only: tuple[str, ...] = ()
    plan: bool = False
    asks: bool = False  # the plan is shown to be answered with a yes; no word of a command says this
    stage_dir: Path | None = None
    accept_unreadable: tuple[str, ...] = ()
    accept_shrink: tuple[str, ...] = ()
    allow_disagreement: bool = False
    nobody_uses: tuple[str, ...] = ()
    no_owners: tuple[str, ...] = ()
    all: bool = False
    read_subset: tuple[int, int] | None = None
    dry_run: bool = False
    action: str | None = None
    repair: str | None = None
    id: str | None = None
    rule: str | None = None
    document: str | None = None
    owner: str | None = None
    stats: bool = False
    lines: bool = False
    repair_declared: bool = False
    at_once: bool = False
    limit: int | None = None
    query: str | None = None
    values: tuple[str, ...] = ()
    store: str | None = None
    pid: str | None = None
    program: str | None = None
    live: bool = False
    stop: str | None = None
    yes: bool = False
    confirm: str | None = None

    @property
    def only_looks(self) -> bool:
        """Whether nothing is changed, although the verb could, and whoever asked is there for the answer."""
        return self.plan or self.dry_run or self.lines or self.action in ("plan", "current", "history")

    @property
    def changes_live(self) -> bool:
        """Whether live data may be changed, which somebody has to want."""
        return self.verb.changes_live and not self.only_looks and self.action != "test"

    def arguments(self) -> dict[str, Any]:
        """What was typed beside the verb and the stack, for the job's record. There is no secret among words."""
        return {name: value for name in _RECORDED if (value := _plain(getattr(self, name)))}

    def typed(self, *more: str) -> list[str]:
        """The words after the verb, as they can be typed again, with more options."""
        given = [getattr(self, argument.name) for argument in self.verb.arguments if not argument.repeats]
        words = [str(value) for value in given if value is not None]
        for option in self.verb.options:
            flag = option.flags[-1]
            value = getattr(self, flag.removeprefix("--").replace("-", "_"))
            if option.takes is Takes.NOTHING:
                words += [flag] if value else []
            elif option.takes is Takes.SUBSET:
                words += [flag, "/".join(map(str, value))] if value else []
            elif value:
                words += [word for each in (value if option.repeats else [value]) for word in (flag, str(each))]
        return [*words, *more, *(["--", *self.values] if self.values else [])]

    @property
    def named_stores(self) -> tuple[str, ...]:
        """Every store that is named."""
        one = () if self.store is None else (self.store,)
        return (*one, *self.only, *self.accept_unreadable, *self.accept_shrink, *self.nobody_uses, *self.no_owners)


_RECORDED = (
    "set",
    "store",
    "back",
    "only",
    "stage_dir",
    "accept_unreadable",
    "accept_shrink",
    "allow_disagreement",
    "nobody_uses",
    "no_owners",
    "all",
    "read_subset",
    "rule",
    "document",
    "owner",
    "stats",
    "repair_declared",
    "action",
    "values",
    "repair",
    "limit",
)


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def read(argv: Sequence[str]) -> Words:
    """Raises Usage, HelpAsked or VersionAsked."""
    first = _first_parser()
    found = argparse.Namespace()
    first.parse_args(argv, found)
    if found.verb is None:
        raise Usage("no verb was given", next="storekeeper --help")
    verb = BY_NAME.get(found.verb)
    if verb is None:
        raise Usage(f'there is no verb "{_short(found.verb)}"', next=_nearest(found.verb))
    rest = found.rest
    del found.verb, found.rest
    _verb_parser(verb).parse_intermixed_args(rest, found)
    return _checked(verb, vars(found))


def guess(argv: Sequence[str]) -> tuple[Globals, str | None]:
    """What can be told of words that could not be read: how to answer, and the verb if one of ours is among them."""
    words = list(argv[: argv.index("--")] if "--" in argv else argv)
    config = os.environ.get("STOREKEEPER_CONFIG") or DEFAULT_CONFIG
    color = next((way for way in ("always", "never") if f"--color={way}" in words or _follows(words, "--color", way)), "auto")
    quiet = "--quiet" in words or "-q" in words
    verb = next((word for word in words if word in BY_NAME), None)
    return Globals(Path(config), "--json" in words, color, quiet, debug="--debug" in words), verb


def _follows(words: Sequence[str], option: str, value: str) -> bool:
    return any(pair == (option, value) for pair in pairwise(words))


def _checked(verb: Verb, found: dict[str, Any]) -> Words:
    """The rules that argparse has no words for."""
    if "config" not in found:
        found["config"] = _directory_of_the_environment()
    options = Globals(
        **{name: found.pop(name) for name in ("config", "json", "color", "quiet", "spread", "job", "heard", "debug") if name in found}
    )
    typed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    words = Words(verb, options, **typed)
    if verb.name == "restore" and (words.set is None) == (not words.back):
        raise Usage("restore takes a set, or --back", next=f"storekeeper restore {words.stack} latest --plan")
    if verb.name == "recover" and words.store is None:
        raise Usage("recover takes the damaged store", next=f"storekeeper recover {words.stack} --store STORE --plan")
    if verb.name == "verify" and words.set is not None and words.all:
        raise Usage("verify takes a set, or --all", next=f"storekeeper verify {words.stack} --all")
    if verb.name == "repair":
        _check_repair(words)
    if verb.name == "migrate":
        _check_migrate(words)
    if words.pid is not None and not re.fullmatch(r"[1-9][0-9]{0,8}", words.pid):
        raise Usage(f"expected the number of a process, found {_short(words.pid)!r}", next=f"storekeeper examine {words.stack}")
    if verb.name == "restore":
        _check_document(words)
    if words.lines and options.json:
        raise Usage("--lines prints a line for each finding, --json one document: give one of them", next="storekeeper check --help")
    if words.repair_declared and (words.rule or words.document or words.owner or words.lines):
        raise Usage("--repair-declared is for a whole check: the rules say what may be removed", next="storekeeper check --help")
    if verb.name == "send" and options.json:
        raise Usage("send writes the set itself to standard output, where a document has no place", next="storekeeper send --help")
    if (options.job or options.heard) and (not verb.job or words.only_looks):
        raise Usage(f"{verb.name} is no job here: it is over at once", next=f"storekeeper {verb.name} --help")
    return words


def _check_repair(words: Words) -> None:
    """Raises Usage for a plan that is named where none can be, or is not where one must be."""
    if (words.action == "plan") != (words.repair is None):
        needed = "takes no plan: it makes one" if words.action == "plan" else "takes the id of a plan"
        raise Usage(f"repair {words.action} {needed}", next="storekeeper repair --help")
    planned = [name for name in ("rule", "document", "owner", "at_once") if getattr(words, name)]
    if words.action != "plan" and planned:
        raise Usage(f"--{planned[0].replace('_', '-')} is said when the plan is made", next="storekeeper repair --help")
    if words.limit is not None and words.action not in ("apply", "reingest"):
        raise Usage("--limit is for apply and reingest", next="storekeeper repair --help")


def _check_migrate(words: Words) -> None:
    """Raises Usage for what is none of its actions, and for a plan of what changes nothing."""
    (actions,) = (argument.choices for argument in words.verb.arguments if argument.name == "action")
    if words.action is not None and words.action not in actions:
        raise Usage(f"migrate does {', '.join(actions)}, and not {_short(words.action)}", next="storekeeper migrate --help")
    if words.plan and words.action in ("current", "history"):
        raise Usage(f"{words.action} changes nothing that could be planned", next="storekeeper migrate --help")


def _check_document(words: Words) -> None:
    """Raises Usage for what a restore of one document does not take."""
    example = f"storekeeper restore {words.stack} latest --document ID --plan"
    if words.document is None:
        if words.rule is not None:
            raise Usage("--rule is said with --document", next=example)
        return
    others = [name for name in ("back", "only", "stage_dir", "accept_unreadable") if getattr(words, name)]
    if others:
        raise Usage(f"--{others[0].replace('_', '-')} has no meaning for one document", next=example)


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing and leaving."""

    def __init__(self, verb: Verb | None) -> None:
        super().__init__(
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            prog=f"storekeeper {verb.name}" if verb else "storekeeper",
        )
        self.verb = verb

    def error(self, message: str) -> NoReturn:
        where = f"storekeeper {self.verb.name} --help" if self.verb else "storekeeper --help"
        raise Usage(_short(re.sub(r"=\S+", "=...", message), 300), next=where)  # a value might be a secret typed in the wrong place


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        raise HelpAsked(parser.verb if isinstance(parser, _Parser) else None)


class _Version(argparse.Action):
    def __call__(self, *_: Any) -> None:
        raise VersionAsked


def _first_parser() -> _Parser:
    parser = _Parser(None)
    _add_globals(parser)
    parser.add_argument("-V", "--version", nargs=0, action=_Version)
    parser.add_argument("verb", nargs="?", default=None)
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    return parser


def _verb_parser(verb: Verb) -> _Parser:
    parser = _Parser(verb)
    _add_globals(parser)
    for argument in verb.arguments:
        _add_argument(parser, argument)
    for option in verb.options:
        _add_option(parser, option)
    return parser


def _add_globals(parser: _Parser) -> None:
    """Without defaults: what stands before the verb is not forgotten by the parser of what comes after it."""
    for option in GLOBAL_OPTIONS:
        if "--help" in option.flags:
            parser.add_argument(*option.flags, nargs=0, action=_Help)
        else:
            _add_option(parser, option)


def _add_argument(parser: _Parser, argument: Argument) -> None:
    keywords: dict[str, Any] = {"nargs": "*" if argument.repeats else "?"} if argument.optional else {}
    if argument.choices and not argument.optional:  # argparse holds what is left out to the choices too
        keywords["choices"] = argument.choices
    parser.add_argument(argument.name, **keywords)


def _add_option(parser: _Parser, option: Option) -> None:
    if option.takes is Takes.NOTHING:
        parser.add_argument(*option.flags, action="store_true", default=argparse.SUPPRESS)
        return
    reader = {Takes.DIRECTORY: _directory, Takes.SUBSET: _subset, Takes.SECONDS: _seconds, Takes.NUMBER: _number}.get(option.takes, str)
    keywords: dict[str, Any] = {"action": "append"} if option.repeats else {}
    parser.add_argument(*option.flags, type=reader, metavar=option.metavar, choices=option.choices or None, **keywords)


def _directory(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("expected a directory")
    try:
        return Path(os.path.abspath(text))
    except FileNotFoundError:
        raise argparse.ArgumentTypeError("expected an absolute path, as the working directory is gone") from None


def _directory_of_the_environment() -> Path:
    try:
        return _directory(os.environ.get("STOREKEEPER_CONFIG") or DEFAULT_CONFIG)
    except argparse.ArgumentTypeError as error:
        raise Usage(f"STOREKEEPER_CONFIG: {error}", next="storekeeper --help") from None


def _subset(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected n/t with n from 1 to t, such as 1/7, found {_short(text)!r}")
    return int(found[1]), int(found[2])


def _seconds(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > 3600:
        raise argparse.ArgumentTypeError(f"expected seconds, at most 3600, found {_short(text)!r}")
    return int(text)


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number, found {_short(text)!r}")
    return int(text)


def _nearest(word: str) -> str:
    import difflib  # noqa: PLC0415 only a mistake needs it

    near = difflib.get_close_matches(word, list(BY_NAME), 1, 0.5)
    return f"storekeeper {near[0]} --help" if near else "storekeeper --help"


def _short(text: str, longest: int = 60) -> str:
    """One printable line, whatever was typed."""
    line = "".join(sign if sign.isprintable() else "?" for sign in text)
    return line if len(line) <= longest else line[: longest - 3] + "..."
