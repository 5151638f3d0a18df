"""What differs between an inventory and a host: the operations of other deploys, looked at and not carried out."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from pyinfra import local, logger
from pyinfra.api import FunctionCommand, Host, State, operation
from pyinfra.api.state import BaseStateCallback

from .program import Refusal, one_line

DIFFERS = 4  # the exit code of a run that found differences, and could read every host


@dataclass(frozen=True)
class Compared:
    """The names of the operations that would change a host, and what could not be told of it."""

    differing: tuple[str, ...]
    unread: tuple[str, ...]


def compare(target: Host, *deploys: str) -> Compared:
    """Read all that the deploys look at on a host, and take their operations out of this run again: none of them is carried out.

    What depends on the result of another operation is no difference of its own: where that changes nothing, it does not run.
    """
    state = target.state
    target = state.inventory.get_host(target.name)  # what a deploy file calls `host` only stands for it
    before = set(state.ops[target])
    for deploy in deploys:
        local.include(deploy)
    differing, unread = [], []
    for op_hash in [each for each in target.op_hash_order if each in state.ops[target] and each not in before]:
        op = state.ops[target].pop(op_hash)
        target.op_hash_order.remove(op_hash)
        if op.global_arguments["_if"]:
            continue
        first = next(iter(op.command_generator()), None)
        if isinstance(first, Refusal):
            unread.append(first.sentence)
        elif first is not None:
            differing += sorted(state.op_meta[op_hash].names)
    return Compared(tuple(differing), tuple(unread))


@operation(is_idempotent=False)
def told(found: Compared) -> Generator[FunctionCommand, None, None]:
    """
    Say what differs. A host of which something could not be read fails; where all could be, pyinfra ends with 4 if any of them differs.

    + found: what `compare` found

    **Example:**

    .. code:: python

        drift.told(name="Drift", found=drift.compare(host, "deploys/site.py"))
    """
    yield FunctionCommand(_tell, (found,), {})


_differing: set[State] = set()


def _tell(state: State, host: Host, found: Compared) -> bool:
    for name in found.differing:
        host.log_styled(f"differs: {one_line(name)}", fg="yellow", log_func=logger.warning)
    for sentence in found.unread:
        host.log_styled(one_line(sentence), fg="red", log_func=logger.error)
    if not found.differing and not found.unread:
        host.log_styled("as declared", fg="green", log_func=logger.info)
    if found.differing and state not in _differing:
        _differing.add(state)
        state.add_callback_handler(_End())  # type: ignore[no-untyped-call]
    return not found.unread


class _End(BaseStateCallback):
    """pyinfra itself knows two exit codes."""

    @staticmethod
    def operation_end(state: State, op_hash: str) -> None:  # noqa: ARG004 as pyinfra calls it
        if not state.failed_hosts:
            raise SystemExit(DIFFERS)
