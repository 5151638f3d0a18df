"""A booted Debian server in a network namespace of its own, reached over SSH: made once, thrown away after.

Needs root, debootstrap and systemd-nspawn (`make packages`). The base image is cached below .cache/lab, which git ignores.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
_LAB = CHECKOUT / "tests/servers/lab"
# What each has beside a bare Debian with sshd and cron. A base is made once and never changed: guests run on it.
FLAVOURS: Mapping[str, Sequence[str]] = {"bookworm": (), "trixie": (), "bookworm-py": ("python3-venv", "faketime")}
_MISSING = 77  # the exit code of the lab's scripts when this machine cannot serve them


@dataclass(frozen=True)
class Guest:
    """`run` types a command over SSH; `power_off` kills its PID 1 as a power cut would, `power_on` boots the same disk."""

    name: str
    address: str
    lab: Path

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = _lab(self.lab, "server.sh", "ssh", self.name, command)
        if check and done.returncode != 0:
            raise AssertionError(f"{command!r} ended with {done.returncode} on {self.name}:\n{done.stdout}{done.stderr}")
        return done

    def put(self, source: Path, target: str) -> None:
        """Copy a tree into the guest, owned by root."""
        archive = subprocess.run(
            ["tar", "-C", str(source), "--exclude=__pycache__", "-cf", "-", "."], check=True, capture_output=True
        ).stdout
        ssh = ["ssh", "-F", str(self.lab / "servers" / self.name / "ssh_config"), "-o", "BatchMode=yes", self.name]
        subprocess.run(
            [*ssh, f"mkdir -p {target} && tar -C {target} --no-same-owner -xf -"], input=archive, check=True, capture_output=True
        )

    def power_off(self) -> None:
        _checked(_lab(self.lab, "server.sh", "off", self.name))

    def power_on(self) -> None:
        _checked(_lab(self.lab, "server.sh", "on", self.name))

    def cut(self) -> None:
        """Its wire goes silent: nothing arrives, nothing is refused."""
        _checked(_lab(self.lab, "server.sh", "cut", self.name))

    def lose(self, share: float) -> None:
        """Its wire loses this share of the packets, each way, at random."""
        _checked(_lab(self.lab, "server.sh", "lossy", self.name, str(share)))

    def mend(self) -> None:
        _checked(_lab(self.lab, "server.sh", "mend", self.name))


@contextmanager
def booted(flavour: str, *, name: str, number: int, in_memory: bool = False) -> Iterator[Guest]:
    """Boot a guest of a cached flavour; it is gone when the block ends. `number` is its own: two guests at one would share an address.

    `in_memory` is for one that holds very many files: what it writes is in memory, and gone at once.
    """
    lab = CHECKOUT / ".cache/lab"
    lab.mkdir(parents=True, exist_ok=True)
    _checked(_lab(lab, "base.sh", flavour, str(lab), *FLAVOURS[flavour]))
    try:
        more = {"LAB_TMPFS": "1"} if in_memory else {}
        address = _checked(_lab(lab, "server.sh", "up", name, str(number), flavour, **more)).stdout.split()[-1]
        yield Guest(name, address, lab)
    finally:
        _lab(lab, "server.sh", "down", name)


def _lab(lab: Path, script: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "LAB_DIR": str(lab), "HOME": "/root", **more}
    return subprocess.run(
        ["bash", str(_LAB / script), *words], capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
    )


def _checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    if done.returncode == _MISSING:
        pytest.skip(done.stderr.strip())
    if done.returncode != 0:
        raise AssertionError(f"the lab failed: {done.stdout}{done.stderr}")
    return done
