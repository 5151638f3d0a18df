"""One command from its words to its exit code: read, confirm, do, record, print."""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from storekeeper import __version__
from storekeeper.cli.console import Console, print_to
from storekeeper.cli.document import Begun, Document, exit_code, to_texts
from storekeeper.cli.signals import Ears, Stopped, listening
from storekeeper.cli.words import HelpAsked, Usage, VersionAsked, Words, guess, read
from storekeeper.host import jobs
from storekeeper.host.jobs import VARIABLE as JOB_VARIABLE
from storekeeper.outcomes import Outcome, Problem, Severity, StorekeeperError, said_by_the_system

# What a host can refuse, and what shows the reason.
_LOOK_AT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "df -h"),
    **dict.fromkeys((errno.EROFS, errno.EIO, errno.ESTALE), "findmnt --target"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.EISDIR), "ls -la"),
}


def answer(argv: Sequence[str]) -> int:
    """Carry out one command and print its answer; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        _tolerate_any_character(stream)
    try:
        words = read(argv)
    except HelpAsked as asked:
        from storekeeper.cli import help as help_text  # noqa: PLC0415

        return _print(help_text.of_program() if asked.verb is None else help_text.of_verb(asked.verb))
    except VersionAsked:
        return _print(f"storekeeper {__version__}\n")
    except Usage as error:
        options, verb = guess(argv)
        document = Begun(verb, None).ended(Outcome.REFUSED, None, [error.problem()])
        return _present(document, Console(options), is_usage=True)
    is_job = JOB_VARIABLE in os.environ
    console = Console(words.options, in_job=is_job)
    if words.shell is not None:
        from storekeeper.cli.completion import bash_script  # noqa: PLC0415

        return _print(bash_script())
    if not is_job:
        console.log(f"configuration {words.options.config}")
    with listening() as ears:
        document = _carried_out(words, console, ears)
        return exit_code(document) if is_job else _present(document, console)  # who follows a job has its answer from the record


def _wait_a_little(words: Words) -> None:
    """So that hosts with one schedule do not all begin at once: each waits its own part of the spread, and the same each time."""
    if words.options.spread:
        own = hashlib.sha256("\0".join([os.uname().nodename, words.verb.name, words.stack or ""]).encode()).digest()
        time.sleep(words.options.spread * int.from_bytes(own[:4]) / (1 << 32))


def _carried_out(words: Words, console: Console, ears: Ears) -> Document:
    """Do what the words say. Every way it can end is a document; a job's is recorded before anybody is told."""
    run = _Run(words, console)
    with ExitStack() as until_recorded:
        document = run.document(ears, until_recorded)
        ears.close()
        return run.recorded(document)


class _Run:
    """One command under way."""

    def __init__(self, words: Words, console: Console) -> None:
        self._words = words
        self._console = console
        self._begun = Begun(words.verb.name, words.stack, words.options.unusual_config)
        self._job: jobs.Job | None = None

    def document(self, ears: Ears, until_recorded: ExitStack) -> Document:
        try:
            return self._done(until_recorded)
        except StorekeeperError as error:
            self._debug()
            return self._begun.ended(error.outcome, None, _problems(error))
        except Stopped as stopped:
            return self._stopped(stopped)
        except Exception as error:  # noqa: BLE001 a crash of ours is answered like any other end, and kept for whoever mends it
            ears.close()
            self._debug()
            if ears.heard is not None:
                return self._stopped(ears.heard)
            return self._begun.ended(Outcome.FAILED, None, [self._refused_by_the_host(error) or self._crash(error)])

    def _stopped(self, stopped: Stopped) -> Document:
        verb = self._words.verb.name
        said = f"nobody follows the {verb} any more ({stopped.name}); it goes on" if self._words.options.job else None
        problem = Problem(said or f"{verb} was stopped by {stopped.name} before its end", next=self._again())
        return self._begun.ended(Outcome.FAILED, None, [problem])

    def recorded(self, document: Document) -> Document:
        """The document once it is written down, with a warning when it could not be: what was done is done."""
        if self._job is None:
            return document
        try:
            self._job.finish(document)
        except OSError as error:
            warning = Problem(f"the record of this run could not be written: {said_by_the_system(error)}", Severity.WARNING)
            return self._begun.with_warning(document, warning)
        return document

    def _done(self, until_recorded: ExitStack) -> Document:
        from storekeeper.cli.calls import Desk  # noqa: PLC0415 the words are read, and perhaps refused, before anything heavy is loaded

        _wait_a_little(self._words)
        desk = Desk(self._words, self._console)
        if self._words.options.job or self._words.options.heard:
            from storekeeper.cli import following  # noqa: PLC0415

            return (following.followed if self._words.options.job else following.heard)(desk, self._begun)
        desk.confirm()
        if self._words.verb.job and not self._words.only_looks:
            self._job = until_recorded.enter_context(desk.recorded())
        report = desk.call()
        return self._begun.ended(report.ended(), report.result, report.problems)

    def _refused_by_the_host(self, error: Exception) -> Problem | None:
        """A full disk, a missing right: no fault of the program. None for what is one."""
        if not isinstance(error, OSError) or error.errno not in _LOOK_AT:
            return None
        path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
        look = None if path is None else f"{_LOOK_AT[error.errno]} {shlex.quote(os.path.dirname(path))}"
        return Problem(f"{self._words.verb.name} could not go on: {said_by_the_system(error)}", next=look)

    def _crash(self, error: Exception) -> Problem:
        """The class of the error and where its traceback is; not its message, in which anything could be."""
        text = "".join(traceback.format_exception(error))
        kept = self._keep(text)
        where = f"the traceback is in {kept}" if kept else "its traceback is printed with --debug"
        return Problem(f"storekeeper itself failed ({type(error).__name__}); {where}", next=None if kept else self._again("--debug"))

    def _keep(self, text: str) -> Path | None:
        try:
            return self._job.keep_traceback(text) if self._job is not None else _keep_elsewhere(text)
        except OSError:
            return None  # the answer then says how to have it printed

    def _debug(self) -> None:
        if self._console.debug:
            self._console.complain(traceback.format_exc().rstrip())

    def _again(self, *more: str) -> str:
        """The same command, as it was typed."""
        return shlex.join(["storekeeper", self._words.verb.name, *self._words.typed(*more)])


def _problems(error: StorekeeperError) -> Sequence[Problem]:
    """One problem, or as many as the error carries (a stack file with several mistakes), and what was noted on its way up."""
    many = getattr(error, "problems", None)
    found: Sequence[Problem] = many() if callable(many) else [error.problem()]
    return [*found, *(Problem(note, Severity.WARNING) for note in getattr(error, "__notes__", ()))]


def _keep_elsewhere(text: str) -> Path:
    """Keep the traceback of a verb that is no job. Raises OSError where there is no room for it."""
    import tempfile  # noqa: PLC0415 only a crash needs it

    with tempfile.NamedTemporaryFile(
        "w", prefix="storekeeper-", suffix=".traceback", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(text)
    return Path(file.name)


def _present(document: Document, console: Console, *, is_usage: bool = False) -> int:
    """Print the document, or the text made from it. Text that cannot be made does not hide how the command ended."""
    if console.json:
        console.answer_in_pieces(to_texts(document))
    try:
        from storekeeper.cli.render import ending  # noqa: PLC0415

        ending.present(document, console, is_usage=is_usage)
    except Exception as error:  # noqa: BLE001 the work is done and recorded: its document is the answer then
        console.complain(f"storekeeper: the answer cannot be shown as text ({type(error).__name__}), this is its document")
        if not console.json:
            console.answer_in_pieces(to_texts(document))
        if console.debug:
            console.complain(traceback.format_exc().rstrip())
    return exit_code(document)


def _print(text: str) -> int:
    print_to(sys.stdout, text.rstrip("\n"))
    return 0


def _tolerate_any_character(stream: TextIO) -> None:
    """Names of files may hold bytes that are no text; they are printed escaped instead of ending the program."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
