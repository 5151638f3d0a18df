"""The settings that follow from how much memory a host has for PostgreSQL, and how many connections share it."""

from __future__ import annotations

from collections.abc import Mapping

from .model import Server

_MIB = 1 << 20
_PRELOADED = "pg_stat_statements"


def settings(server: Server, memory: int) -> Mapping[str, str]:
    """Everything that stands in our file of conf.d, by name. `memory` is the host's, in bytes."""
    ours = memory * server.memory_share
    return {
        "port": str(server.port),
        "listen_addresses": server.listen,
        "max_connections": str(server.max_connections),
        "shared_preload_libraries": _PRELOADED,
        "password_encryption": "scram-sha-256",
        # A quarter in buffers and the rest for the kernel's cache is where the manual says to begin (19.4.1).
        "shared_buffers": _mib(ours / 4, 16, 16384),
        "effective_cache_size": _mib(ours * 3 / 4, 64, 1 << 20),
        # One index is built, or one table vacuumed, in this; three at once by the server itself.
        "maintenance_work_mem": _mib(ours / 16, 32, 2048),
        # A query sorts or hashes in it, some of them several times: a quarter shared by all connections at once.
        "work_mem": _mib(ours / 4 / server.max_connections, 4, 256),
        **server.settings,
    }


def _mib(wanted: float, least: int, most: int) -> str:
    return f"{min(max(int(wanted / _MIB), least), most)}MB"
