"""docs/deploys.md: every command in it, in its order, and the deploy for a project of one's own, as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from operations import declared
from tests.harness.deploys import Site, environment, run_deploy
from tests.harness.markdown import blocks
from tests.harness.program import CHECKOUT
from tests.harness.wheel import unpacked_wheel

PAGE = CHECKOUT / "docs/deploys.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.add_stack("maestro")
    return site


RULES = """consistency:
  documents:
    authority: {store: main, query: "select 'a' from documents where id = 1", columns: [id]}
    replicas: [{store: papers, pattern: "{id}.txt"}]
queries: {recent_chats: {store: main, query: "select id, title from documents order by id desc", limit: 10}}
migration: {upgrade: {run: [ls, "{main}"]}}
"""


@pytest.mark.slow
def test_every_command_of_the_page_works_in_its_order(site, tmp_path):
    """Typed in a copy of the checkout, with this machine in the place of prod-ai-1 and nothing asked."""
    with open(site.stack_file("maestro"), "a", encoding="utf-8") as file:
        file.write(RULES)
    copy = tmp_path / "checkout"
    for part in ("deploys", "operations", "templates", "inventories"):
        shutil.copytree(CHECKOUT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "config.py", copy)
    commands = "".join(blocks(PAGE, "sh"))
    words = commands.replace("pyinfra inventories/production.py", f'"{sys.prefix}/bin/pyinfra" -y "{site.control}/inventory.py"')
    words = words.replace("@prod-ai-1", f"@{os.uname().nodename}")
    if os.geteuid() != 0:  # without root nobody can see who has the files open
        for which in ("restore", "reset", "migrate"):
            words = words.replace(f"deploys/{which}.py", f"deploys/{which}.py --data nobody_uses=papers")
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{words}"], cwd=copy, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert commands.count("deploys/") == 32, "a command was added or taken away: see that it is run"
    assert "1 of 1 stack is well" in (copy / "report.html").read_text()


def test_every_deploy_has_its_part_and_every_key_is_explained():
    names = {path.stem for path in (CHECKOUT / "deploys").glob("*.py")}
    assert set(re.findall(r"^## ([a-z]+)$", TEXT, re.MULTILINE)) == names
    for key, default in declared.DEFAULTS.items():
        assert re.search(rf"^\| `{key}` \| `{re.escape(default)}` \|", TEXT, re.MULTILINE), key
    for path in (CHECKOUT / "deploys").glob("*.py"):
        for key in re.findall(r'declared\.(?:flag|text|names)\(host, "([a-z_]+)"\)', path.read_text()):
            assert f"{key}=" in TEXT or f"| `{key}` |" in TEXT, f"{key} of {path.name} is not explained"


def test_the_inventory_of_the_page_is_one(tmp_path):
    inventory = blocks(PAGE, "python")[0]
    found: dict[str, list[tuple[str, dict[str, object]]]] = {}
    exec(inventory, found)
    assert found["hosts"][0][0] == "prod-ai-1"
    assert set(found["hosts"][0][1]) == {"storekeeper_stacks"}


@pytest.mark.slow
def test_a_project_of_ones_own_uses_the_operations_of_the_wheel(site, tmp_path):
    assert run_deploy(site.control / "inventory.py", "site").code == 0
    (tmp_path / "wheel").mkdir()
    wheel = unpacked_wheel(tmp_path / "wheel")
    project = tmp_path / "project"
    project.mkdir()
    _, deploy, config = blocks(PAGE, "python")
    (project / "deploy.py").write_text(deploy)
    (project / "config.py").write_text(config)

    def run() -> str:
        words = [f"{sys.prefix}/bin/pyinfra", "-y", "-v", str(site.control / "inventory.py"), "deploy.py"]
        place = {**environment(), "PYTHONPATH": str(wheel)}
        done = subprocess.run(words, cwd=project, env=place, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stderr

    assert "ok: prove  maestro" in run()
    assert "1 of 1 stack is well" in (project / "report.html").read_text()
    assert re.search(r"noop: newest proven set \S+ of maestro is 0 min old, within 24h", run())
