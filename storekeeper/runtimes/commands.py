"""Running a declared command of the application: its words as they are, bounded in time, and no secret in what is told of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote

from storekeeper.host.processes import SEARCH_PATH, Command, User, run
from storekeeper.outcomes import Failed, Refused
from storekeeper.stack.commands import DeclaredCommand, filled

_TIMEOUT = "timeout"  # coreutils: it ends all that the command has started, also where this program is gone
_PATIENCE_S = 10  # from SIGTERM to SIGKILL
_TIMED_OUT = (124, 137)
_LAST = 1000  # characters of each of its outputs that are worth a person's time
_MOST_TOLD = 64_000  # characters of the output of one that was asked for it
_TAKEN_OUT = "[taken out]"
_SILENCED = "what it said is not told, because a secret of the stack cannot be read that may be in it"
_ANY = range(-64, 256)


def refuse_unless_there(command: DeclaredCommand) -> None:
    """Raises Refused where its program, its user or its directory is not on this host. Runs nothing."""
    user_of(command)
    directory = command.directory or Path("/")
    if not directory.is_dir():
        raise Refused(f"{command.spoken}: its directory {directory} is not there", next=f"ls -ld {directory.parent}")
    program_of(command)
    if shutil.which(_TIMEOUT, path=SEARCH_PATH) is None:
        raise Refused(f"{command.spoken}: the program {_TIMEOUT} is not there, which bounds it in time", next="apt-get install coreutils")


def user_of(command: DeclaredCommand) -> User | None:
    """Who runs it; None for this program's own user. Raises Refused for a user that there is not, or whom this program may not become."""
    if command.user is None:
        return None
    try:
        user = User.named(command.user)
    except KeyError:
        raise Refused(f"{command.spoken}: this system has no user {command.user}", next=f"getent passwd {command.user}") from None
    if os.geteuid() not in (0, user.uid):
        raise Refused(f"{command.spoken}: only root can run it as {command.user}", next="run as root, or leave `user` out")
    return user


def program_of(command: DeclaredCommand) -> Path:
    """Its program, found in its directory or in the fixed search path. Raises Refused where it is not, or cannot be run."""
    word = command.run[0]
    directory = str(command.directory or "/")
    found = shutil.which(os.path.join(directory, word) if "/" in word else word, path=SEARCH_PATH)
    if found is None:
        where = f"in {SEARCH_PATH}" if "/" not in word else f"as seen from {directory}"
        raise Refused(f"{command.spoken}: there is no program {word} {where}", next="name it by its whole path in `run`")
    return Path(found)


def carry_out(
    command: DeclaredCommand,
    addresses: Mapping[str, str],
    more: Mapping[str, str],
    secrets: Sequence[str] | None,
    stdin: IO[bytes] | None = None,
) -> str:
    """Run it to its end, and return the end of what it said. `addresses` are the places of stores, and the words that were typed, by name;
    `more` are variables of ours. It reads an open file, or nothing.

    Raises Failed, with the last that it said, unless it ends with 0 within its time. Whatever is in `secrets` is taken out of that;
    where it is None nobody knows what to take out, and nothing of it is said.
    """
    seconds = int(command.timeout.total_seconds())
    words = [filled(word, addresses) for word in command.run[1:]]
    environment = {name: filled(text, addresses) for name, text in command.environment.items()}
    bounded = [_TIMEOUT, f"--kill-after={_PATIENCE_S}", str(seconds), str(program_of(command)), *words]
    started = Command(bounded, {**environment, **more}, user=user_of(command), directory=command.directory)
    ended = run(started, stdin=stdin, timeout=seconds + 3.0 * _PATIENCE_S, accept=_ANY)
    if ended.code == 0:
        return _SILENCED if secrets is None else _without(ended.stdout.decode(errors="replace"), secrets)[-_MOST_TOLD:]
    how = f"did not end within {seconds} s" if ended.code in _TIMED_OUT and ended.seconds >= seconds else _ending(ended.code)
    raise Failed(f"{command.spoken} {how}: {_last_words(ended.stdout.decode(errors='replace'), ended.stderr, secrets)}")


def _ending(code: int) -> str:
    return f"ended with {code}" if code >= 0 else f"was killed by signal {-code}"


def _last_words(out: str, err: str, secrets: Sequence[str] | None) -> str:
    if secrets is None:
        return _SILENCED
    said = [" ".join(_without(text, secrets)[-_LAST:].split()) for text in (err, out)]
    return " | ".join(text for text in said if text) or "it said nothing"


def _without(text: str, secrets: Sequence[str]) -> str:
    """Taken out before anything is cut off: half a secret is one too."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in (secret, quote(secret, safe="")):
            text = text.replace(form, _TAKEN_OUT)
    return text
