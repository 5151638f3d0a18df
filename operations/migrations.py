"""Run the application's own migrations: on a copy of a proven set, and where stack and host are named on what is live."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from pyinfra import logger
from pyinfra.api import Host, OperationValueError, State, operation
from pyinfra.connectors.util import CommandOutput

from storekeeper.cli.render import migrate as text
from storekeeper.cli.render.layout import Paint
from storekeeper.stack.migrations import ACTIONS, ASKING, TEST

from .program import JobVerb, Verb, one_line, value, word


@operation(is_idempotent=False)
def migrate(
    stack: str,
    action: str = "upgrade",
    values: Sequence[str] = (),
    nobody_uses: Sequence[str] = (),
    no_owners: Sequence[str] = (),
    confirm: str | None = None,
) -> Generator[Verb | JobVerb, None, None]:
    """
    Run a migration command that the stack file declares. Without ``confirm`` nothing live is changed: an upgrade is tried on a copy,
    ``downgrade`` and ``stamp`` are planned.

    + stack: the stack's name
    + action: ``upgrade``, ``downgrade``, ``stamp``, ``test``, ``current`` or ``history``
    + values: the words that the command takes
    + nobody_uses: stores whose files no other program has open, where the host cannot see that by itself
    + no_owners: stores to restore without the owners of their files, should it come to that
    + confirm: ``STACK@HOST``, by which it is carried out live

    **Example:**

    .. code:: python

        migrations.migrate(name="Upgrade maestro", stack="maestro", confirm="maestro@staging-1")
    """
    words = typed(stack, action, values, nobody_uses, no_owners, confirm)
    if action in ASKING or "--plan" in words:
        yield _Told("migrate", *words)
    else:
        yield JobVerb("migrate", *words)


def typed(
    stack: str, action: str, values: Sequence[str], nobody_uses: Sequence[str], no_owners: Sequence[str], confirm: str | None
) -> list[str]:
    """What is typed after `migrate`. Raises OperationValueError for what cannot be meant."""
    if action not in ACTIONS:
        raise OperationValueError(f"a migration does {', '.join(ACTIONS)}, and not {action!r}")
    for named, words in (("values", values), ("nobody_uses", nobody_uses), ("no_owners", no_owners)):
        if isinstance(words, str):
            raise OperationValueError(f"{named} are a list of words, and no word")
    if action == "upgrade" and confirm is None:
        action, values = TEST, ()
    said = [value("stack", stack), action]
    for option, stores in (("--nobody-uses", nobody_uses), ("--no-owners", no_owners)):
        said += [each for store in stores if action not in ASKING for each in (option, value(option, store))]
    if action in ("downgrade", "stamp", "upgrade"):
        said += ["--plan"] if confirm is None else ["--confirm", value("confirm", confirm)]
    return [*said, *(["--", *(word("a value", each) for each in values)] if values else [])]


class _Told(Verb):
    """`migrate` where it only tells: what it tells is printed."""

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        done, output = super().execute(state, host, connector_arguments)
        if done and self.document["result"] is not None and "output" in self.document["result"]:
            for line in text.migrate(dict(self.document), Paint())[1:]:
                host.log(one_line(line), log_func=logger.info)
        return done, output
