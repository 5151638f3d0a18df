"""A set from the repository of one host into that of another, through this machine, piece by piece.

The hosts need not know each other. One program sends, the other receives, compares and decodes; nothing is written here.
"""

from __future__ import annotations

import subprocess
from abc import abstractmethod
from collections.abc import Generator, Mapping
from typing import IO, Any, Protocol, cast

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, State, StringCommand, operation
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import make_unix_command_for_host

from .program import Program, one_line, parse_document, quoted, refused, say, tell, value

_PIECE = 1 << 18  # bytes; what a channel of SSH takes at once is less
_RIGHTS = ("_sudo", "_use_sudo", "_su_", "_use_su_", "_doas", "_use_doas", "_preserve_su")  # pyinfra's words for who carries a command out
_MOST_SAID = 4096  # bytes of what the programs tell that are kept


@operation(is_idempotent=False)
def received(stack: str, source: str, set: str | None = None) -> Generator[FunctionCommand, None, None]:
    """
    Have a set of another host of the inventory in this host's repository. Both need the stack's stores under the same names.

    + stack: the stack's name, on both hosts
    + source: the other host, as the inventory names it
    + set: ``latest``, a set's id, time or start of an id; the newest usable one when not given

    **Example:**

    .. code:: python

        passage.received(name="A set of production", stack="maestro", source="prod-ai-1")
    """
    yield taken(stack, source, set, {})


def taken(stack: str, source: str, set: str | None, arrived: dict[str, str]) -> FunctionCommand:
    """The command that does it. Once it was carried out, `arrived` has the set's name on this host under `id`."""
    other = host.state.inventory.get_host(value("source", source), None)
    if other is None or other is host:
        known = ", ".join(sorted(each.name for each in host.state.inventory if each is not host)) or "none"
        return refused(f"{source} is no other host of this inventory; there is {known}")
    return FunctionCommand(_relay, (other, value("stack", stack), () if set is None else (value("set", set),), arrived), {})


def _relay(state: State, host: Host, source: Host, stack: str, chosen: tuple[str, ...], arrived: dict[str, str]) -> bool:
    if not source.connected:
        source.connect(reason="to take a set from it", raise_exceptions=True)
    own = {key: each for key, each in (host.current_op_global_arguments or {}).items() if key.startswith(_RIGHTS)}
    sender = _begun(state, source, Program.of(source).typed("send", stack, *chosen), {"_sudo": bool(source.data.get("storekeeper_sudo"))})
    receiver = _begun(state, host, Program.of(host).words("receive", stack, option="--quiet"), own)
    _pass_on(sender, receiver)
    sent = sender.ended()
    if sent.code != 0:
        receiver.cut_off()  # without an end it keeps nothing
        return say(state, host, f"{source.name} did not send a set of {stack}: {sent.words or 'it said nothing'}")
    got = receiver.ended()
    document = parse_document(got.out.decode(errors="replace").splitlines())
    if document is None:
        return say(state, host, f"{host.name} did not receive the set of {source.name}: {got.words or 'it said nothing'}")
    tell(host, document)
    if got.code == 0:
        arrived["id"] = document["result"]["set"]["id"]
        host.log(one_line(f"the set of {source.name} is {arrived['id']} here"), log_func=logger.info)
    return got.code == 0


def _pass_on(sender: Running, receiver: Running) -> None:
    try:
        while piece := sender.read():
            receiver.write(piece)
    except OSError:
        while sender.read():  # the receiver has refused, and says why; the sender must come to its end
            pass


class Ended:
    """How a program ended: its code, what it answered, and the last of what it told."""

    def __init__(self, code: int, out: bytes, told: bytes) -> None:
        self.code = code
        self.out = out
        self.words = one_line(told.decode(errors="replace").strip().splitlines()[-1]) if told.strip() else ""


class Running(Protocol):
    """A program on a host, with its standard input and output as bytes: pyinfra's own commands know lines of text alone."""

    @abstractmethod
    def read(self) -> bytes: ...
    @abstractmethod
    def write(self, piece: bytes) -> None: ...
    @abstractmethod
    def cut_off(self) -> None: ...
    @abstractmethod
    def ended(self) -> Ended: ...


def _begun(state: State, target: Host, words: tuple[str, ...], rights: Mapping[str, Any]) -> Running:
    command = make_unix_command_for_host(state, target, StringCommand(*quoted(words)), **rights).get_raw_value()
    if isinstance(target.connector, SSHConnector):
        return _Remote(target.connector, command)
    return _Local(command)


class _Local:
    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def read(self) -> bytes:
        return cast("IO[bytes]", self._process.stdout).read(_PIECE)

    def write(self, piece: bytes) -> None:
        cast("IO[bytes]", self._process.stdin).write(piece)

    def cut_off(self) -> None:
        self._process.communicate()

    def ended(self) -> Ended:
        out, told = self._process.communicate()
        return Ended(self._process.returncode, out, told[-_MOST_SAID:])


class _Remote:
    def __init__(self, connector: SSHConnector, command: str) -> None:
        transport = cast("Any", connector.client).get_transport()
        self._channel = transport.open_session()
        self._channel.exec_command(command)

    def read(self) -> bytes:
        return cast("bytes", self._channel.recv(_PIECE))

    def write(self, piece: bytes) -> None:
        self._channel.sendall(piece)

    def cut_off(self) -> None:
        self._channel.close()

    def ended(self) -> Ended:
        self._channel.shutdown_write()
        out, told = self._rest(self._channel.recv), self._rest(self._channel.recv_stderr)
        return Ended(self._channel.recv_exit_status(), out, told[-_MOST_SAID:])

    def _rest(self, receive: Any) -> bytes:
        found = b""
        while piece := receive(_PIECE):
            found = (found + piece)[-(1 << 20) :]
        return found
