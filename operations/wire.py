"""What this machine does about a wire that was cut: without it a deploy waits for ever for a host that is gone."""

from __future__ import annotations

import socket

from pyinfra.api import Host
from pyinfra.connectors.ssh import SSHConnector

IDLE_S, INTERVAL_S, PROBES = 10, 5, 3  # a silent host is asked after 10 s, three times: after 25 s it is gone
_OPTIONS = (
    # A command is a few short messages: each would wait for the one before to be acknowledged.
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", IDLE_S),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", INTERVAL_S),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", PROBES),
    # Keepalive asks on an idle wire only; this is for what was sent and never acknowledged (tcp(7), in milliseconds).
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", (IDLE_S + INTERVAL_S * PROBES) * 1000),
)


def watch(target: Host) -> None:
    """Have the kernel notice that a host is gone, and send at once what is short. A job on the host goes on when its wire is gone."""
    if not isinstance(target.connector, SSHConnector) or target.connector.client is None:
        return
    transport = target.connector.client.get_transport()
    connection = transport.sock if transport is not None else None
    for level, name, value in _OPTIONS:
        option = getattr(socket, name, None)  # some are Linux's own
        if option is not None and isinstance(connection, socket.socket):
            connection.setsockopt(level, option, value)
