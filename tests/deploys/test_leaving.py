"""A person at the terminal: who leaves with Ctrl-C leaves the job alone and is told so, and who restores is asked first."""

from __future__ import annotations

import os
import pty
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.host import jobs
from tests.harness.deploys import Site, begin_deploy

HOST = os.uname().nodename


def _wait_for_record(folder: Path) -> Path:
    deadline = time.monotonic() + 30
    while not (found := list(folder.glob("*.json"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[0]


def test_who_leaves_is_told_that_the_backup_goes_on_and_how_to_come_back_and_it_does(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.add_stack("demo", "backup: {load: {max_rate: 200kB}}\n")
    (site.live() / "papers/large").write_bytes(os.urandom(250_000))
    assert site.deploy("site").code == 0
    folder = site.root / "state/jobs/demo"
    deploy = begin_deploy(site.control / "inventory.py", "backup")
    record = _wait_for_record(folder)
    os.killpg(deploy.pid, signal.SIGINT)
    said, _ = deploy.communicate(timeout=30)
    assert deploy.returncode == 130, said
    assert "backup demo goes on at @local" in said
    assert f"follow it: pyinfra -y {site.control}/inventory.py deploys/backup.py" in said
    assert "deploys/jobs.py [--data stop=JOB]" in said
    assert "Traceback" not in said
    assert [each.running for each in jobs.records(folder)] == [True], "it goes on"
    again = site.deploy("backup")
    assert again.code == 0, again.said
    assert [each.name for each in folder.glob("*.json")] == [record.name], "the same run was found, and nothing ran twice"
    assert [each.outcome for each in jobs.records(folder)] == ["ok"]


def _until_asked(deploy: subprocess.Popen[str]) -> str:
    """What a deploy says up to its question, which ends with no newline."""
    assert deploy.stdout is not None
    said = ""
    while "to go on: " not in said:
        sign = deploy.stdout.read(1)
        assert sign, said
        said += sign
    return said


@pytest.mark.parametrize(("typed", "code", "rows"), [(f"demo@{HOST}", 0, 40), ("demo@elsewhere", 1, 10), ("", 1, 10)])
def test_a_restore_without_a_confirmation_does_what_it_has_shown_once_stack_and_host_are_typed(
    tmp_path: Path, typed: str, code: int, rows: int
) -> None:
    site = Site(tmp_path)
    site.add_stack("demo", "schedule: {}\n")
    assert site.deploy("site").code == 0
    assert site.deploy("backup").code == 0
    with closing(sqlite3.connect(site.live() / "main.db")) as database, database:
        database.execute("delete from documents where id > 10")
    here, there = pty.openpty()
    try:
        inventory = site.control / "inventory.py"
        deploy = begin_deploy(inventory, "restore", stdin=there, stack="demo", set="latest", nobody_uses="papers")
        said = _until_asked(deploy)
        assert site.deploy("backup").code == 0  # a newer set, of what is left, while the person reads
        os.write(here, f"{typed}\n".encode())
        rest, _ = deploy.communicate(timeout=60)
        said += rest
    finally:
        os.close(here)
        os.close(there)
    assert deploy.returncode == code, said
    asked = said.index("This replaces live data of demo on @local")
    plan = re.search(r"main +documents +10 +40", said)
    assert plan is not None
    assert plan.start() < asked, "the plan comes before the question"
    with closing(sqlite3.connect(site.live() / "main.db")) as database:
        assert database.execute("select count(*) from documents").fetchone() == (rows,)
