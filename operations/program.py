"""The one place on the control side that types words to the host program and reads its documents."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, OperationValueError, QuoteString, State, StringCommand
from pyinfra.api.arguments import ConnectorArguments
from pyinfra.connectors.util import CommandOutput, OutputLine

from storekeeper.cli.render import plans
from storekeeper.cli.render.layout import Paint
from storekeeper.cli.render.repair import repair

from . import leaving

RELEASES = "/opt/storekeeper"
PROGRAM = f"{RELEASES}/current/bin/storekeeper"
CONFIG = "/etc/storekeeper"
_SCHEMA = 1  # of the documents that are understood here
_ACCEPTED = (0, 4)  # ok, and ok with warnings that a person is told
_SUCCESS: ConnectorArguments = {"_success_exit_codes": list(_ACCEPTED)}
_OUTCOME_COLOURS = {"ok": "green", "warning": "yellow", "unknown": "yellow"}
_WITHOUT_A_SET = {"reset": "all stores emptied", "recover": "what is left"}  # what is switched to where it is no set
_LONGEST = 4096  # bytes of one word: no path, name or set is longer


@dataclass(frozen=True)
class Program:
    """Where the host program and its configuration are on a host: host data `storekeeper_program`, else the current one of
    `storekeeper_releases`, and `storekeeper_config`.
    """

    path: str = PROGRAM
    config: str = CONFIG

    @classmethod
    def of(cls, target: Host) -> Program:
        released = f"{target.data.get('storekeeper_releases', RELEASES)}/current/bin/storekeeper"
        return cls(target.data.get("storekeeper_program", released), target.data.get("storekeeper_config", CONFIG))

    @property
    def plain(self) -> str:
        """How a shell script types the program, with its configuration."""
        return " ".join(shlex.quote(word) for word in (self.path, "--config", self.config))

    def typed(self, verb: str, *arguments: str) -> tuple[str, ...]:
        """As `words`, for a verb whose standard output is no document."""
        words = self.words(verb, *arguments, option="--quiet")
        return tuple(word for word in words if word != "--json")

    def words(self, verb: str, *arguments: str, option: str | None = None) -> tuple[str, ...]:
        """The argument list of a verb that answers with a document. Raises OperationValueError for a word that no verb takes.

        `option` is one of the program's own, before the verb.
        """
        for what, path in (("storekeeper_program", self.path), ("storekeeper_config", self.config)):
            if not PurePosixPath(value(what, path)).is_absolute():
                raise OperationValueError(f"{what} is no absolute path: {path!r}")
        own = ["--json"] if option is None else ["--json", option]
        return (self.path, "--config", self.config, *own, verb, *(word(f"a word of {verb}", each) for each in arguments))


def value(what: str, given: object) -> str:
    """What a person or an inventory gave, as one word. Raises OperationValueError, naming it, for what could be read as an option."""
    found = word(what, given)
    if found.startswith("-"):
        raise OperationValueError(f"{what} cannot begin with a dash: {_short(found)}")
    return found


def word(what: str, given: object) -> str:
    """The same for what stands where no option can: it may begin with a dash."""
    if not isinstance(given, str) or not given:
        raise OperationValueError(f"{what} is no word: {_short(given)}")
    if any(ord(sign) < 32 or 127 <= ord(sign) < 160 or 0xD800 <= ord(sign) < 0xE000 for sign in given):
        raise OperationValueError(f"{what} cannot hold control characters: {_short(given)}")
    if len(given.encode()) > _LONGEST:
        raise OperationValueError(f"{what} is longer than {_LONGEST} bytes: {_short(given)}")
    return given


def _short(given: object) -> str:
    text = ascii(given)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Verb(StringCommand):
    """A verb of the host program as a pyinfra command: its sentences reach the person, its exit code decides.

    0 and 4 are success (warnings are printed), anything else fails this host and no other. What was answered is in `document` then.
    """

    document: Mapping[str, Any]

    def __init__(self, verb: str, *arguments: str) -> None:
        super().__init__(*quoted(Program.of(host).words(verb, *arguments)), **_SUCCESS)

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        status, output = super().execute(state, host, connector_arguments)
        document = parse_document(output.stdout_lines)
        if document is None:
            return False, output
        self.document = document
        tell(host, document)
        return status, _answered(output) if status else CommandOutput([])


class JobVerb(StringCommand):
    """A long verb, which goes on whatever happens to the wire: it is a job of the host, started or found, and followed here.

    What it tells while it works is printed as it comes. Then its answer is fetched, by which the host knows that it was heard: a run
    whose answer got lost on the way is not run again, but answers whoever asks next.
    """

    def __init__(self, verb: str, *arguments: str) -> None:
        program = Program.of(host)
        super().__init__(*quoted(program.words(verb, *arguments, option="--job")), ">/dev/null", **_SUCCESS)
        self._what = " ".join([verb, *arguments[:1]])
        self._fetch = StringCommand(*quoted(program.words(verb, *arguments, option="--heard")), **_SUCCESS)

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        known = {**connector_arguments, **self.connector_arguments, "print_input": state.print_input}
        with leaving.followed(host, self._what):
            followed, said = host.run_shell_command(self, print_output=True, **known)
        heard, output = host.run_shell_command(self._fetch, **known)
        document = parse_document(output.stdout_lines)
        if document is None or "job" not in document:
            return False, said  # refused before there was a job, or cut off: why has been printed
        tell(host, document, printed=[one_line(line) for line in said.stderr_lines])
        return followed and heard, _answered(output) if followed else CommandOutput([])


def _answered(output: CommandOutput) -> CommandOutput:
    """What a person is not shown again: the document alone."""
    return CommandOutput([OutputLine("stdout", line) for line in output.stdout_lines])


def quoted(words: Sequence[str]) -> Iterator[QuoteString]:
    return (QuoteString(word) for word in words)


class Refusal(FunctionCommand):
    """A command that fails its own host with a sentence. Nothing is typed."""

    def __init__(self, sentence: str) -> None:
        super().__init__(say, (sentence,), {})
        self.sentence = sentence


def unread(what: str) -> Refusal:
    """The refusal where `what`, on which the decision rests, could not be read."""
    return Refusal(f"{what} could not be read, so nothing was decided")


def refused(sentence: str) -> Refusal:
    return Refusal(sentence)


def say(state: State, host: Host, sentence: str) -> bool:  # noqa: ARG001 pyinfra looks for both names
    host.log_styled(one_line(sentence), fg="red", log_func=logger.error)
    return False


def parse_document(lines: Sequence[str]) -> dict[str, Any] | None:
    """The one document that a verb printed; None when what came is none, or one of another version."""
    try:
        document = json.loads("\n".join(lines))
    except ValueError:
        return None
    if not isinstance(document, dict) or document.get("schema") != _SCHEMA or "outcome" not in document:
        return None
    return document


def tell(target: Host, document: dict[str, Any], printed: Sequence[str] = ()) -> None:
    """Print what a document says to people: one line of figures, then each problem with its next command, but none that was printed."""
    colour = _OUTCOME_COLOURS.get(document["outcome"], "red")
    target.log_styled(one_line(f"{document['outcome']}: {headline(document)}"), fg=colour, log_func=logger.info)
    for problem in document.get("problems", ()):
        message = one_line(problem["message"])
        if any(message in line for line in printed):
            continue
        subject = " ".join(word for word in (document.get("stack"), problem.get("store")) if word)
        log = logger.info if problem["severity"] == "info" else logger.warning
        said = f"{one_line(subject or document['verb'])}: {message}"
        target.log_styled(said, fg="yellow" if problem["severity"] == "warning" else None, log_func=log)
        if problem.get("next"):
            target.log(one_line(f"  next: {problem['next']}"), log_func=log)
    result = document.get("result") or {}
    if is_repair(result):
        for line in repair(document, Paint())[1:]:
            target.log(one_line(line), log_func=logger.info)
    elif isinstance(result.get("plan"), dict):
        for line in plans.plan(document, Paint())[1:]:
            target.log(one_line(line), log_func=logger.info)
    back = result.get("back")
    if back:
        target.log(one_line(f"  the way back: {back}"), log_func=logger.info)


def is_repair(result: Mapping[str, Any]) -> bool:
    """Whether this is what `repair` answers: a plan of its own, or what was removed or put back by one."""
    return isinstance(result.get("plan"), str) or "reingest_file" in (result.get("plan") or {})


def headline(document: dict[str, Any]) -> str:
    """The verb, its stack and the figures that matter, in one line."""
    result = document.get("result") or {}
    words = [str(document["verb"])]
    if document.get("stack"):
        words.append(str(document["stack"]))
    made = result.get("set")
    if isinstance(made, dict):
        words += [made["id"], f"{made['bytes'] / 1e6:.1f} MB", f"skew {made['skew_ms']:.0f} ms"]
    elif isinstance(made, str):
        words.append(made)
    sets = result.get("sets")
    if isinstance(sets, list):
        words.append(", ".join(f"{each['id']} {each['state']}" for each in sets[-3:]) or "no set")
    if is_repair(result):
        words.append(f"plan {result['plan']['id'] if isinstance(result['plan'], dict) else result['plan']}")
    elif isinstance(result.get("plan"), dict):
        words.append(f"plan: {result['plan'].get('set') or _WITHOUT_A_SET.get(document['verb'], 'the old sides')}")
    if isinstance(result.get("removed"), list):
        words.append(f"{len(result['kept'])} kept, {len(result['removed'])} {'would be removed' if result.get('dry_run') else 'removed'}")
    words.append(f"{document['seconds']:.1f} s")
    return "  ".join(words)


def one_line(text: str) -> str:
    """One printable line: names of files are other people's words and must not drive the terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text.replace("\n", " "))
