"""deploys/site.py on this machine: what is declared is so, what was changed by hand is put back, and nothing else is touched."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.deploys import Deployed, Site, tree

BROKEN = "stack: broken\nstores:\n  main: {kind: sqllite, path: /srv/x.db}\nbakup: {}\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.add_stack("demo")
    return site


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that is as declared; tests leave it so."""
    site = Site(tmp_path_factory.mktemp("site"))
    site.add_stack("demo")
    site.add_stack("mem0", more="")
    assert site.deploy("site").code == 0
    return site


def _well(deployed: Deployed) -> Deployed:
    assert deployed.code == 0, deployed.said
    return deployed


def test_a_second_run_changes_nothing_and_says_why(declared):
    before = tree(declared.root)
    again = _well(declared.deploy("site"))
    assert again.changed == []
    assert again.table["Grand total"] == (0, 0, len(again.table) - 1)
    assert len(again.reasons) == len(again.table) - 1, "each operation says why it changed nothing"
    assert tree(declared.root) == before


def test_the_host_holds_exactly_what_is_declared(declared):
    root = declared.root
    assert (root / "etc/stacks/demo.yml").read_text() == declared.stack_file("demo").read_text()
    assert {path.name for path in (root / "cron.d").iterdir()} == {"storekeeper-demo"}
    line, owed = [line for line in (root / "cron.d/storekeeper-demo").read_text().splitlines() if line[:1].isdigit()]
    assert line.startswith("0 3 * * * ")
    assert line.endswith(f"--config {root}/etc --quiet backup demo")
    assert owed.endswith(f" * * * * {getpass.getuser()} {sys.prefix}/bin/storekeeper --config {root}/etc --quiet due demo")
    modes = {path: (root / path).stat().st_mode & 0o777 for path in ("etc", "etc/stacks", "etc/storekeeper.yml", "state", "sets", "cron.d")}
    assert modes == {"etc": 0o700, "etc/stacks": 0o700, "etc/storekeeper.yml": 0o600, "state": 0o700, "sets": 0o700, "cron.d": 0o755}
    assert (root / "cron.d/storekeeper-demo").read_text().endswith("\n"), "cron does not read a last line without an end"


@pytest.mark.parametrize(
    ("drift", "mended"),
    [
        (lambda root: _append(root / "cron.d/storekeeper-demo", "* * * * * root rm -r /\n"), "Schedule of demo"),
        (lambda root: (root / "cron.d/storekeeper-demo").chmod(0o666), "Schedule of demo"),
        (lambda root: (root / "cron.d/storekeeper-demo").unlink(), "Schedule of demo"),
        (lambda root: _append(root / "etc/stacks/demo.yml", "backup: {keep: {days: 1}}\n"), "Stack file of demo"),
        (lambda root: _append(root / "etc/storekeeper.yml", "# by hand\n"), "Configuration"),
        (lambda root: (root / "etc").chmod(0o755), "Directory of the configuration"),
        (lambda root: (root / "sets").chmod(0o777), "Directory of the repository"),
        (lambda root: _copy(root / "cron.d/storekeeper-demo", root / "cron.d/storekeeper-mem0"), "No other schedules"),
        (lambda root: _copy(root / "cron.d/storekeeper-demo", root / "cron.d/storekeeper-gone"), "No other schedules"),
    ],
    ids=[
        "a line added",
        "its mode",
        "its file gone",
        "a stack file",
        "the configuration",
        "a directory",
        "the repository",
        "a schedule",
        "a stack gone",
    ],
)
def test_what_was_changed_by_hand_is_put_back_and_nothing_else(declared, drift, mended):
    before = tree(declared.root)
    drift(declared.root)
    assert tree(declared.root) != before
    assert _well(declared.deploy("site")).changed == [mended]
    assert tree(declared.root) == before


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())
    target.chmod(0o644)


def test_files_that_are_not_ours_are_left_alone(declared):
    foreign = [
        declared.root / "cron.d/other",
        declared.root / "cron.d/storekeeper-mine",
        declared.root / "etc/notes",
        declared.root / "etc/stacks/.notes",
    ]
    for path in foreign:
        path.write_text("mine\n")
        path.chmod(0o604)
    before = tree(declared.root)
    assert _well(declared.deploy("site")).changed == []
    assert tree(declared.root) == before
    for path in foreign:
        path.unlink()


def test_a_stack_that_loses_its_schedule_loses_its_file_of_it(site):
    _well(site.deploy("site"))
    (site.root / "cron.d/other").write_text("mine\n")
    text = site.stack_file("demo").read_text()
    site.stack_file("demo").write_text(text.replace("schedule: {backup: '0 3 * * *'}\n", ""))
    assert set(_well(site.deploy("site")).changed) == {"Stack file of demo", "No other schedules"}
    assert {path.name for path in (site.root / "cron.d").iterdir()} == {"other"}


def test_one_broken_stack_file_of_two_stops_the_deploy_before_anything_is_touched(site):
    site.stack_file("broken").write_text(BROKEN)
    before = tree(site.root)
    refused = site.deploy("site")
    assert refused.code == 1
    assert f"{site.stack_file('broken')}:3:16: stores.main.kind: expected one of" in refused.said
    assert 'unknown key "bakup"' in refused.said
    assert "Traceback" not in refused.said
    assert tree(site.root) == before
    assert not (site.root / "etc").exists()


def test_control_the_good_stack_alone_is_deployed(site):
    site.stack_file("broken").write_text(BROKEN)
    site.stack_file("broken").unlink()
    assert _well(site.deploy("site")).changed


def test_a_host_that_a_limit_leaves_out_and_a_dry_run_change_nothing(site):
    before = tree(site.root)
    assert site.deploy("site", "--dry").code == 0
    assert tree(site.root) == before
    text = (site.control / "inventory.py").read_text()
    (site.control / "inventory.py").write_text(text + "\nothers = [('@fake/other', {'fake_delay': 0, 'fake_delay_jitter': 0})]\n")
    assert "@local" not in site.deploy("site", "--limit", "@fake/other").said
    assert tree(site.root) == before


def test_a_place_with_a_space_and_signs_of_yaml_and_of_the_shell_is_the_place_that_is_used(tmp_path):
    site = Site(tmp_path, host="it's: a #place & %more")
    site.add_stack("demo", more='schedule: {verify: "0 3 * * *"}\n')
    _well(site.deploy("site"))
    assert _well(site.deploy("site")).changed == []
    _well(site.deploy("backup"))
    assert len(list((site.root / "sets/demo").glob("2*"))) == 1
    command = (site.root / "cron.d/storekeeper-demo").read_text().splitlines()[-2].split(" ", 6)[-1]
    done = subprocess.run(["sh", "-c", command.replace(r"\%", "%")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "cron says nothing of a run that went well"


def test_the_demos_inventory_works_before_the_demo_ever_ran(tmp_path, monkeypatch):
    monkeypatch.setenv("STOREKEEPER_DEMO", str(tmp_path / "demo"))
    site = Site(tmp_path)
    deployed = _well(site.deploy("site", inventory="inventories/demo.py"))
    assert {*deployed.table} - {*deployed.changed} == {"Preflight", "No other schedules", "Grand total"}
    assert _well(site.deploy("site", inventory="inventories/demo.py")).changed == []
    assert (tmp_path / "demo/cron.d/storekeeper-demo").exists()
    report = site.deploy("status", inventory="inventories/demo.py", report=str(tmp_path / "report.html"))
    assert report.code == 0, report.said
    assert "There is no set. Nothing can be restored." in (tmp_path / "report.html").read_text()
    shutil.rmtree(tmp_path / "demo")
