"""The guide for servers, typed as a new user would, against bare servers of both Debians."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.guest import Guest, booted
from tests.harness.markdown import blocks
from tests.harness.mutation import copy_checkout

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

CHECKOUT = Path(__file__).resolve().parents[2]
GUIDE = CHECKOUT / "docs/servers.md"
SUITES = {"bookworm": (85, "15", "root"), "trixie": (86, "17", "ops")}


@pytest.fixture(scope="module", params=sorted(SUITES))
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Guest, str]]:
    suite = request.param
    with booted(suite, name=f"guide-{suite}"[:12], number=SUITES[suite][0]) as guest:
        yield guest, suite


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, server: tuple[Guest, str]) -> Path:
    """A person's home: a checkout with its virtual environment, a key, and the server's own key among the known ones."""
    guest, _ = server
    home = tmp_path_factory.mktemp("home")
    copy_checkout(home / "storekeeper")
    (home / "storekeeper/.venv").symlink_to(CHECKOUT / ".venv")
    keys = home / ".ssh"
    keys.mkdir(mode=0o700)
    shutil.copy2(guest.lab / "id_ed25519", keys / "id_ed25519")
    shutil.copy2(guest.lab / "servers" / guest.name / "known_hosts", keys / "known_hosts")
    return home


def test_every_command_of_the_guide_for_servers_works_in_its_order(home: Path, server: tuple[Guest, str]) -> None:
    guest, suite = server
    _, version, user = SUITES[suite]
    known = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "USER": "root"}
    known |= {"SERVER": guest.address, "SERVER_USER": user, "POSTGRESQL": version}
    # ssh itself looks for keys in the home of the password file, not in HOME
    ssh = f'ssh() {{ command ssh -i {home}/.ssh/id_ed25519 -o UserKnownHostsFile={home}/.ssh/known_hosts -o BatchMode=yes "$@"; }}\n'
    if user == "root":
        guest.run("command -v sudo || apt-get install -y -q sudo")
    text = "\n".join(blocks(GUIDE, "sh"))
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{ssh}{text}"],
        cwd=home / "storekeeper",
        env=known,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "10000\n" in done.stdout, "every row is back"
    assert "as declared" in done.stdout + done.stderr, "nothing has drifted"
    timers = guest.run("systemctl list-timers --all --no-legend 'storekeeper-*'").stdout
    assert "storekeeper-shop-backup.timer" in timers
    assert (home / "storekeeper/report.html").exists()
    assert (home / "storekeeper/report.json").exists()
    for deploy in ("provision", "site"):
        again = subprocess.run(
            [".venv/bin/pyinfra", "-y", "inventories/shop.py", f"deploys/{deploy}.py"],
            cwd=home / "storekeeper",
            env=known,
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        grand = next(line.split() for line in again.stdout.splitlines() + again.stderr.splitlines() if "Grand total" in line)
        assert grand[3] == "-", f"a second {deploy} changed something: {again.stdout}{again.stderr}"
