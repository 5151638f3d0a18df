"""A TCP wire with faults: latency, a rate, silence, a reset. It needs no root and nothing of the kernel.

`python -m tests.harness.wire HOST:PORT --rtt MS --rate BYTES` listens on loopback, prints its port, and reads a word a line from standard
input: `cut` (deliver nothing and close nothing, as a network that is gone), `reset` (end every connection at once) or `mend`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
_PIECE = 65536
_GLANCE_S = 0.02


class Wire:
    """A running wire; connect to 127.0.0.1 at `port`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def cut(self) -> None:
        self._tell("cut")

    def reset(self) -> None:
        self._tell("reset")

    def mend(self) -> None:
        self._tell("mend")

    def passed(self) -> int:
        """How many bytes it has delivered so far, both ways."""
        return self._asked("passed")

    def round_trips(self) -> int:
        """How often the client sent something that may have waited for an answer: the handshake of each connection, its first burst, and
        each burst that left the client after something of the server's had reached it on the same connection.

        It is what the client's end can see, and so a bound from above: what was sent just after an answer, without having waited for it
        (an acknowledgement, the next request of a pipeline), counts too. Nothing that had to wait is left out.
        """
        return self._asked("round-trips")

    def _asked(self, word: str) -> int:
        self._tell(word)
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()


@contextmanager
def wire(address: str, port: int = 22, *, rtt_ms: float = 0.0, rate: float = 0.0) -> Iterator[Wire]:
    """A wire to a server, while the block runs; `rate` in bytes a second, 0 for any."""
    argv = [sys.executable, "-m", "tests.harness.wire", f"{address}:{port}", "--rtt", str(rtt_ms), "--rate", str(rate)]
    with subprocess.Popen(argv, cwd=_CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Wire(process)
        finally:
            process.kill()


class _Faults:
    """What is wrong with the wire just now, and what has passed over it."""

    def __init__(self, rtt_s: float, rate: float) -> None:
        self.rtt_s = rtt_s
        self.rate = rate
        self.is_cut = False
        self.passed = 0
        self.round_trips = 0
        self.ends: set[asyncio.StreamWriter] = set()

    async def wait_until_mended(self) -> None:
        while self.is_cut:
            await asyncio.sleep(_GLANCE_S)

    def reset(self) -> None:
        for end in list(self.ends):
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


class _ClientsEnd:
    """What the client of one connection has sent and heard, which tells its round trips."""

    def __init__(self, faults: _Faults) -> None:
        self._faults = faults
        self._has_heard = True  # the answer of the handshake
        faults.round_trips += 1

    def hears(self) -> None:
        self._has_heard = True

    def sends(self) -> None:
        self._faults.round_trips += self._has_heard
        self._has_heard = False


async def _carry(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    faults: _Faults,
    *,
    sent: Callable[[], None] = lambda: None,
    arrived: Callable[[], None] = lambda: None,
) -> None:
    """One direction: each piece arrives half a round trip after it was sent, and pieces follow each other at once, as in a pipe."""
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(2000)

    async def collect() -> None:
        data = b"-"
        while data:
            data = await source.read(_PIECE)
            if data:
                sent()
            await under_way.put((time.monotonic() + faults.rtt_s / 2, data))

    async def deliver() -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await faults.wait_until_mended()
            if not data:
                if target.can_write_eof():
                    target.write_eof()
                return
            arrived()
            target.write(data)
            await target.drain()
            faults.passed += len(data)
            if faults.rate:
                await asyncio.sleep(len(data) / faults.rate)

    await asyncio.gather(collect(), deliver())


async def _serve(host: str, port: int, faults: _Faults) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        with contextlib.suppress(OSError):
            await asyncio.sleep(faults.rtt_s)  # the handshake costs a round trip
            await faults.wait_until_mended()
            far_reader, far_writer = await asyncio.open_connection(host, port)
            ends.append(far_writer)
            for end in ends:
                end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                faults.ends.add(end)
            client = _ClientsEnd(faults)
            there = _carry(reader, far_writer, faults, sent=client.sends)
            await asyncio.gather(there, _carry(far_reader, writer, faults, arrived=client.hears))
        for end in ends:
            faults.ends.discard(end)
            end.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    words = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    while line := await words.readline():
        match line.strip():
            case b"cut":
                faults.is_cut = True
            case b"mend":
                faults.is_cut = False
            case b"reset":
                faults.reset()
            case b"passed":
                print(faults.passed, flush=True)
            case b"round-trips":
                print(faults.round_trips, flush=True)


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("to")
    given.add_argument("--rtt", type=float, default=0.0)
    given.add_argument("--rate", type=float, default=0.0)
    words = given.parse_args()
    where, _, number = words.to.rpartition(":")
    asyncio.run(_serve(where, int(number), _Faults(words.rtt / 1000, words.rate)))
