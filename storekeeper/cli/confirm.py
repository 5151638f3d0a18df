"""What changes live data is asked for: typed on a terminal, or said with the command; never assumed."""

from __future__ import annotations

import shlex

from storekeeper.cli.console import Console
from storekeeper.cli.document import host_name
from storekeeper.cli.words import Words
from storekeeper.outcomes import Refused

_DOES = {"evict": ("asks a program to end that uses", "This asks a program to end")}
_REPLACES = ("replaces live data of", "This replaces live data")


def is_confirmed(words: Words) -> bool:
    """Whether the command itself says that live data may be replaced. Raises Refused when it means another stack or host."""
    meant = f"{words.stack}@{host_name()}"
    if words.confirm is not None and words.confirm != meant:
        raise Refused(f"--confirm names {ascii(words.confirm[:60])[1:-1]}, this is {meant}: nothing was changed")
    return words.yes or words.confirm is not None


def refuse_without_terminal(words: Words, console: Console) -> None:
    """Raises Refused where nobody can be asked."""
    if not console.can_ask:
        meant = f"{words.stack}@{host_name()}"
        raise Refused(
            f"{words.verb.name} {_DOES.get(words.verb.name, _REPLACES)[0]} {meant} and nobody is there to be asked: nothing was changed."
            f" Say --yes here, or --confirm {meant} from afar",
            next=shlex.join(["storekeeper", words.verb.name, *words.typed("--yes")]),
        )


def ask(words: Words, console: Console, plan: str) -> None:
    """Show what would be done and have the stack's name typed. Raises Refused for anything else."""
    console.complain(plan)
    does = _DOES.get(words.verb.name, _REPLACES)[1]
    typed = console.ask(f"\n{does} on {host_name()}. Type the stack's name to go on: ")
    if typed != words.stack:
        raise Refused(f"the name typed is not {words.stack}: nothing was changed")
