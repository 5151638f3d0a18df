"""Deploys as a person runs them: pyinfra in a process of its own, from the checkout, against this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.harness.program import CHECKOUT, Program

_INVENTORY = """from pathlib import Path

_stacks = Path(__file__).parent / "stacks"

hosts = [("@local", {{
    "storekeeper_program": "{program}",
    "storekeeper_config": {root!r} + "/etc",
    "storekeeper_repository": {root!r} + "/sets",
    "storekeeper_state": {root!r} + "/state",
    "storekeeper_scratch": {root!r},
    "storekeeper_cron": {root!r} + "/cron.d",
    "storekeeper_user": "{user}",
    "storekeeper_stacks": {{path.stem: str(path) for path in _stacks.glob("*.yml")}},
}})]
"""


@dataclass(frozen=True)
class Deployed:
    """How a deploy ended: its exit code, and the rows of the table that pyinfra prints (operation -> success, error, no change)."""

    code: int
    said: str

    @property
    def table(self) -> dict[str, tuple[int, int, int]]:
        rows = re.findall(r"^ {4}(\S.*?) {2,}[0-9]+ +([0-9-]+) +([0-9-]+) +([0-9-]+) *$", self.said, re.MULTILINE)
        return {name: (_number(success), _number(error), _number(none)) for name, success, error, none in rows}

    @property
    def changed(self) -> list[str]:
        """The operations that did something."""
        return [name for name, (success, _, _) in self.table.items() if success and name != "Grand total"]

    @property
    def reasons(self) -> list[str]:
        """Why nothing was done, one a no-op."""
        return re.findall(r"noop: (.*)", self.said)


def _number(text: str) -> int:
    return 0 if text == "-" else int(text)


class Site:
    """An inventory of this machine with all of Storekeeper below `root`, and what is declared below `control`."""

    def __init__(self, root: Path, host: str = "host") -> None:
        self.root = root / host
        self.control = root / "control"
        self._made = root / "made"
        (self.control / "stacks").mkdir(parents=True)
        self.root.mkdir()
        user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
        text = _INVENTORY.format(program=f"{sys.prefix}/bin/storekeeper", root=str(self.root), user=user)
        (self.control / "inventory.py").write_text(text, encoding="utf-8")

    def stack_file(self, name: str) -> Path:
        return self.control / "stacks" / f"{name}.yml"

    def add_stack(self, name: str = "demo", more: str = "schedule: {backup: '0 3 * * *'}\n") -> None:
        """A stack of a small database and a tree of files."""
        made = Program(self._made / name)
        made.declare_small(name, more)
        (made.config / "stacks" / f"{name}.yml").rename(self.stack_file(name))

    def live(self, name: str = "demo") -> Path:
        return self._made / name / "live" / name

    def deploy(self, which: str, *words: str, inventory: str | None = None, **data: str) -> Deployed:
        return run_deploy(inventory or self.control / "inventory.py", which, *words, **data)


def run_deploy(inventory: str | Path, which: str, *words: str, **data: str) -> Deployed:
    """Run a deploy; without `--dry` among the words it is not asked about."""
    return ended(begin_deploy(inventory, which, *words, **data))


def begin_deploy(inventory: str | Path, which: str, *words: str, stdin: int = subprocess.DEVNULL, **data: str) -> subprocess.Popen[str]:
    """Start a deploy in a process group of its own; the caller waits for it with `ended`, or kills it."""
    pairs = [word for key, value in data.items() for word in ("--data", f"{key}={value}")]
    yes = [] if "--dry" in words else ["-y"]
    return subprocess.Popen(
        [f"{sys.prefix}/bin/pyinfra", *yes, str(inventory), f"deploys/{which}.py", *words, *pairs],
        cwd=CHECKOUT,
        env=environment(),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(deploy: subprocess.Popen[str]) -> Deployed:
    """Wait for a deploy. Raises TimeoutExpired for one that takes ten minutes, which is then killed."""
    try:
        said, _ = deploy.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        deploy.kill()
        raise
    return Deployed(deploy.returncode, re.sub(r"\x1b\[[0-9;]*m", "", said))


def environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "STOREKEEPER_DEMO") if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8", "COLUMNS": "200"}


def tree(place: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """Everything below a directory: mode, owner, contents."""
    found = {}
    for path in sorted(place.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(place))] = (status.st_mode, status.st_uid, path.read_bytes() if path.is_file() else None)
    return found
