"""The program on a terminal, where somebody types."""

from __future__ import annotations

import os
import pty
import select
import subprocess

from tests.harness.program import CHECKOUT, Program


def on_terminal(program: Program, *words: str, answer: str) -> tuple[str, int]:
    """Run with a terminal for all three streams, and type an answer when it is asked for."""
    master, slave = pty.openpty()
    process = subprocess.Popen(program.argv(*words), stdin=slave, stdout=slave, stderr=slave, cwd=CHECKOUT, start_new_session=True)
    os.close(slave)
    shown, typed = b"", False
    try:
        while True:
            ready, _, _ = select.select([master], [], [], 60)
            if not ready:
                raise AssertionError(f"nothing came: {shown!r}")
            try:
                shown += os.read(master, 4096)
            except OSError:  # the terminal is closed with its last user
                break
            if b"to go on: " in shown and not typed:
                os.write(master, f"{answer}\n".encode())
                typed = True
    finally:
        os.close(master)
        process.wait()
    return shown.decode(), process.returncode
