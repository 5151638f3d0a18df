"""The demo's own PostgreSQL: made, started and stopped by us, as an unprivileged user where we are root."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo import place

_PATIENCE = 30.0  # seconds for the server to answer


@contextmanager
def running(root: Path) -> Iterator[str]:
    """Run a new, empty server while the block runs; yields its version. It listens on a socket in the demo's directory only."""
    programs = place.provide_programs()
    data, socket = root / "server", root / "socket"
    user = place.server_user()
    for directory in (data, socket):
        directory.mkdir(mode=0o700)
        if user:
            os.chown(directory, user.pw_uid, user.pw_gid)
    _run([programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-instructions"])
    server = subprocess.Popen(
        [str(programs / "postgres"), "-D", str(data), "-k", str(socket), "-c", "listen_addresses="],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(root / "server.log").open("ab"),
        **_as_server_user(),
    )
    try:
        _wait(programs, socket, server)
        yield _run([programs / "postgres", "--version"]).strip()
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(data, ignore_errors=True)


def _wait(programs: Path, socket: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while subprocess.run([str(programs / "pg_isready"), "-q", "-h", str(socket)], check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"PostgreSQL did not start: see {socket.parent / 'server.log'}")
        time.sleep(0.05)


def _run(argv: list[str | Path]) -> str:
    done = subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True, cwd="/", **_as_server_user())
    return done.stdout


def _as_server_user() -> dict[str, int | list[int]]:
    user = place.server_user()
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
