"""send and receive: one set from the repository of one host into that of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import BinaryIO

from storekeeper.host import space
from storekeeper.outcomes import Failed, Refused
from storekeeper.sets.context import Context
from storekeeper.sets.manifest import Manifest, checked
from storekeeper.sets.names import parse_id
from storekeeper.sets.passage import Incoming, Label, send
from storekeeper.sets.readingback import read_back
from storekeeper.verbs.documents import describe_set
from storekeeper.verbs.report import Report


def send_set(context: Context, set_name: str | None, write: Callable[[bytes], object]) -> Report:
    """Write a usable set, the newest when none is named, to a stream. It is kept from being removed meanwhile."""
    entry = context.sets.resolve(set_name or "latest").entry
    with context.sets.using(entry):
        try:
            send(entry.path, Label(context.stack.stack, entry.id, entry.bytes), write, context.progress)
        except BrokenPipeError:
            raise Failed(f"set {entry.id} was not sent: whoever took it went away") from None
    return Report({"set": describe_set(entry)})


def receive_set(context: Context, stream: BinaryIO) -> Report:
    """Publish the set that a stream brings, under the next number here, once every byte of it was compared and decoded.

    It keeps the time at which it was taken, and the name of the host that took it. Raises Refused for one whose stores are not those
    that are declared here, or for which there is no room; Failed for one that was cut off or altered. Nothing is kept of it then.
    """
    stack = context.stack.stack
    context.sets.sweep()
    incoming = Incoming(stream, stack)
    label = incoming.label
    space.check({context.sets.path: label.bytes}, purpose=f"the set {label.id}", next=f"storekeeper prune {stack}")
    with context.sets.begin(_time_of(label)) as partial:
        manifest = checked(incoming.receive(partial.path, context.progress), expect_id=label.id, expect_stack=stack)
        _refuse_others(manifest, {name: store.kind for name, store in context.stack.stores.items()})
        manifest = replace(manifest, id=partial.id, sequence=partial.sequence, previous=None)
        read_back(partial.path, manifest, context.stores, context.progress)
        context.progress.step(None, "publishing")
        return Report({"set": describe_set(partial.publish(manifest))})


def _time_of(label: Label) -> datetime:
    try:
        return parse_id(label.id).time
    except ValueError as error:
        raise Refused(f"what is sent is no set: {error}") from None


def _refuse_others(manifest: Manifest, declared: Mapping[str, str]) -> None:
    """A set can be restored only into the stores it was taken of."""
    held = {name: record.kind for name, record in manifest.stores.items()}
    if held != declared:
        told = ", ".join(f"{name} ({kind})" for name, kind in held.items())
        here = ", ".join(f"{name} ({kind})" for name, kind in declared.items())
        raise Refused(f"the set holds {told}; declared here are {here}", next="give both hosts one stack file")
