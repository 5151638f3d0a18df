"""The demo's own PostgreSQL: made, started and stopped by us, as an unprivileged user where we are root."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo import place
from storekeeper.host import processes
from storekeeper.host.processes import Command

_PATIENCE = 30.0  # seconds for the server to answer


@contextmanager
def running(root: Path) -> Iterator[str]:
    """Run a new, empty server while the block runs; yields its version. It listens on a socket in the demo's directory only."""
    programs = place.provide_programs()
    user = place.server_user()
    data, socket = root / "server", root / "socket"
    for directory in (data, socket):
        directory.mkdir(mode=0o700)
        if user:
            os.chown(directory, user.uid, user.gid)
    initdb: list[str | Path] = [
        programs / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
        "--no-instructions",
    ]
    processes.run(Command(initdb, user=user))
    settings = ["-c", "listen_addresses=", "-c", "logging_collector=on"]
    postgres: list[str | Path] = [programs / "postgres", "-D", data, "-k", socket, *settings]
    server = processes.start(Command(postgres, user=user))
    try:
        _wait(Command([programs / "pg_isready", "-q", "-h", socket]))
        yield processes.run(Command([programs / "postgres", "--version"])).stdout.decode().strip()
    finally:
        processes.end(server, patience=20)
        shutil.rmtree(data, ignore_errors=True)


def _wait(is_ready: Command) -> None:
    deadline = time.monotonic() + _PATIENCE
    while processes.run(is_ready, accept=(0, 1, 2)).code != 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"PostgreSQL did not answer within {_PATIENCE:g} s")
        time.sleep(0.05)
