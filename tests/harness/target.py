"""A booted server as the control side sees it: an inventory that has it alone, and the deploys run against it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tests.harness.deploys import Deployed, run_deploy
from tests.harness.guest import Guest

PROGRAM = "/opt/storekeeper/current/bin/storekeeper"  # on the server, when site.py has run


class Target:
    """`data` is what the inventory declares for the server; `control` is a directory of the control machine."""

    def __init__(self, guest: Guest, control: Path, **data: Any) -> None:
        self.guest = guest
        self.control = control
        self.inventory = control / "inventory.py"
        self.declare(**data)

    def declare(self, **data: Any) -> None:
        """Declare this, and nothing of what was declared before. Reached as `ops`, with sudo, unless it says otherwise."""
        known = {
            "ssh_user": "ops",
            "ssh_key": str(self.guest.lab / "id_ed25519"),
            "ssh_known_hosts_file": str(self.guest.lab / "servers" / self.guest.name / "known_hosts"),
            "ssh_strict_host_key_checking": "yes",
            "storekeeper_sudo": True,
        }
        self.inventory.write_text(f"hosts = [({self.guest.address!r}, {known | data!r})]\n", encoding="utf-8")

    def deploy(self, which: str, *words: str, **data: str) -> Deployed:
        return run_deploy(self.inventory, which, *words, **data)

    def said(self, *words: str) -> str:
        """What a command prints on the server, without its last newline."""
        return self.guest.run(shlex.join(words)).stdout.strip()

    def secret(self, name: str, data: bytes, mode: int = 0o600) -> dict[str, str]:
        """A reference to a file of this machine that holds it."""
        directory = self.control.parent / f"{self.control.name}-secrets"
        directory.mkdir(mode=0o700, exist_ok=True)
        file = directory / name
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        file.chmod(mode)
        return {"file": str(file)}
