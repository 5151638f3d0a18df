"""The operating deploys on this machine: each types its verb, says what came of it, and ends with a code that is true."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storekeeper.host import locks
from tests.harness import damaged
from tests.harness.deploys import Deployed, Site, environment, tree
from tests.harness.program import CHECKOUT

CONFIRM = f"demo@{os.uname().nodename}"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A declared site without a set."""
    return _declared_site(tmp_path)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The same, for tests in which nothing may happen to it."""
    return _declared_site(tmp_path_factory.mktemp("untouched"))


def _declared_site(place: Path) -> Site:
    site = Site(place)
    site.add_stack("demo")
    _well(site.deploy("site"))
    return site


def _well(deployed: Deployed) -> Deployed:
    assert deployed.code == 0, deployed.said
    return deployed


def _failed(deployed: Deployed) -> Deployed:
    assert deployed.code == 1, deployed.said
    assert "Traceback" not in deployed.said
    return deployed


_ALTER = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('alter table documents add column seen text')"
_SHOW = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('select sql from sqlite_master').fetchall())"
MIGRATION = f"""migration:
  upgrade: {{run: ["{sys.executable}", "-c", "{_ALTER}", "{{main}}"]}}
  stamp: {{run: ["true", "{{main}}", "{{version}}"], arguments: [version]}}
  downgrade: {{run: ["true", "{{main}}"]}}
  current: {{run: ["{sys.executable}", "-c", "{_SHOW}", "{{main}}"]}}
"""
RULES = """consistency:
  library:
    authority: {store: main, query: "select printf('%04d', id) from documents where id < 3", columns: [id]}
    replicas: [{store: papers, pattern: "{id}.txt"}]
"""


@pytest.fixture
def ruled(tmp_path: Path) -> Site:
    """A declared site whose two documents, 0001 and 0002, have a file each."""
    site = Site(tmp_path)
    site.add_stack("demo", RULES)
    papers = site.live() / "papers"
    (papers / "a.txt").rename(papers / "0001.txt")
    (papers / "0002.txt").write_text("hello", encoding="utf-8")
    _well(site.deploy("site"))
    return site


def test_stores_are_looked_at_and_what_disagrees_is_told_and_what_cannot_be_read_fails(ruled, tmp_path):
    agreed = _well(ruled.deploy("check"))
    assert agreed.changed == ["Check demo"]
    assert "ok: check  demo" in agreed.said
    (ruled.live() / "papers/0002.txt").rename(ruled.live() / "papers/0003.txt")
    disagreeing = _well(ruled.deploy("check", rule="library"))
    assert disagreeing.changed == ["Check demo, rule library"]
    assert disagreeing.said.count("library: 1 orphan, 1 missing in papers") == 1, disagreeing.said
    assert "missing: 0002 in papers/{id}.txt, since" in disagreeing.said
    _well(ruled.deploy("status", report=str(tmp_path / "report.html")))
    assert '<td data-name="papers" class="number heat-1">1</td>' in (tmp_path / "report.html").read_text()
    (ruled.live() / "papers").rename(tmp_path / "elsewhere")
    assert "cannot be read, so nothing is known of it" in _failed(ruled.deploy("check")).said


def test_what_may_be_removed_is_planned_removed_with_the_plans_id_and_put_back(ruled):
    stranger = ruled.live() / "papers/0003.txt"
    stranger.write_text("nobody's", encoding="utf-8")
    planned = _well(ruled.deploy("repair", at_once="yes"))
    assert stranger.exists(), "a plan removes nothing"
    found = re.search(r"repair  demo  plan (\S+-[0-9a-f]{12})", planned.said)
    assert found is not None, planned.said
    assert "orphan" in planned.said
    plan = found[1]
    assert "live data would be changed: pass --data confirm=demo@HOST" in _failed(ruled.deploy("repair", plan=plan)).said
    assert "names demo@elsewhere" in _failed(ruled.deploy("repair", plan=plan, confirm="demo@elsewhere")).said
    assert "the brake lets 0 through" in _failed(ruled.deploy("repair", plan=plan, confirm=CONFIRM)).said
    assert stranger.exists()
    _well(ruled.deploy("repair", plan=plan, confirm=CONFIRM, limit="1"))
    assert not stranger.exists()
    _well(ruled.deploy("undo", plan=plan, confirm=CONFIRM))
    assert stranger.read_text(encoding="utf-8") == "nobody's"


QUERIES = """queries:
  titled: {store: main, query: "select id, title from documents where title = :title", arguments: [title]}
"""


def test_a_named_query_is_asked_with_its_value_and_its_rows_are_printed(tmp_path):
    site = Site(tmp_path)
    site.add_stack("demo", QUERIES)
    _well(site.deploy("site"))
    assert "titled TITLE" in _well(site.deploy("query")).said
    asked = _well(site.deploy("query", query="titled", values="'title 7'"))
    assert re.search(r"8  title 7$", asked.said, re.MULTILINE)
    assert "titled takes 1 values (title), 0 were given" in _failed(site.deploy("query", query="titled")).said


@pytest.mark.parametrize("typed", ["0002", '"0002"'])
def test_a_document_whose_id_begins_with_zeros_is_the_one_that_was_typed(ruled, typed):
    (ruled.live() / "papers/0002.txt").unlink()
    looked = _well(ruled.deploy("check", document=typed))
    assert looked.changed == ["Check demo, document 0002"]
    assert "missing: 0002 in papers/{id}.txt" in looked.said


def test_clean_fails_the_deploy_where_stores_disagree_and_leaves_what_comes_after_undone(ruled, tmp_path):
    deploy = tmp_path / "clean.py"
    deploy.write_text(
        "from operations import consistency\nfrom pyinfra.operations import files\n"
        "consistency.clean(name='Agreement', stack='demo')\n"
        f"files.file(name='After', path='{tmp_path}/after')\n"
    )
    words = [f"{sys.prefix}/bin/pyinfra", "-y", f"{ruled.control}/inventory.py", str(deploy)]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=False)

    (ruled.live() / "papers/0003.txt").touch()
    failed = run()
    assert failed.returncode == 1, failed.stderr
    assert "the stores of demo disagree: library: 1 orphan" in failed.stderr
    assert not (tmp_path / "after").exists()
    (ruled.live() / "papers/0003.txt").unlink()
    agreed = run()
    assert agreed.returncode == 0, agreed.stderr
    assert (tmp_path / "after").exists()


def _storekeeper(site: Site, *words: str) -> Any:
    argv = [f"{sys.prefix}/bin/storekeeper", "--config", str(site.root / "etc"), "--json", *words]
    return json.loads(subprocess.run(argv, capture_output=True, check=False).stdout)["result"]


def _sets(site: Site) -> list[Any]:
    return _storekeeper(site, "list", "demo")["sets"]


def _rows(site: Site) -> int:
    with closing(sqlite3.connect(site.live() / "main.db")) as database:
        return int(database.execute("select count(*) from documents").fetchone()[0])


def _delete(site: Site, above: int) -> None:
    with closing(sqlite3.connect(site.live() / "main.db")) as database, database:
        database.execute("delete from documents where id > ?", (above,))


def test_the_main_job_from_the_first_set_to_the_way_back(site, tmp_path):
    nobody = {"nobody_uses": "papers"}
    first = _well(site.deploy("backup", within="26h"))
    assert first.changed == ["Have a set of demo within 26h"]
    assert "ok: backup  demo" in first.said
    again = _well(site.deploy("backup", within="26h"))
    assert (again.changed, len(_sets(site))) == ([], 1)
    assert again.reasons[-1].startswith(f"newest verified set {_sets(site)[0]['id']} of demo is 0 min old")

    assert _well(site.deploy("prove", within="7d")).changed == ["Prove the newest set of demo"]
    assert _sets(site)[0]["state"] == "proven"
    proven = _well(site.deploy("prove", within="7d"))
    assert proven.changed == []
    assert "was proven 0 min ago, within 7d" in proven.reasons[-1]
    assert _well(site.deploy("verify")).changed == ["Verify all sets of demo"]

    _delete(site, above=10)
    before = tree(site.root / "sets")
    planned = _well(site.deploy("restore", set="latest", plan="yes", **nobody))
    assert re.search(r"main +documents +10 +40", planned.said), planned.said
    assert (_rows(site), tree(site.root / "sets")) == (10, before)

    assert "shows" not in _failed(site.deploy("restore", set="latest", **nobody)).said
    refused = _failed(site.deploy("restore", set="latest", confirm="demo@elsewhere", **nobody))
    assert f"--confirm names demo@elsewhere, this is {CONFIRM}" in refused.said
    assert (_rows(site), tree(site.root / "sets")) == (10, before), "a refused restore touches nothing"

    restored = _well(site.deploy("restore", set="latest", confirm=CONFIRM, **nobody))
    assert _rows(site) == 40
    assert re.search(r"main +documents +10 +40", restored.said), "what will be is said before it is done"
    assert "the way back: storekeeper" in restored.said
    _well(site.deploy("restore", back="yes", confirm=CONFIRM, **nobody))
    assert _rows(site) == 10

    sets = len(_sets(site))
    assert "would be removed" in _well(site.deploy("prune", plan="yes")).said
    assert "0 removed" in _well(site.deploy("prune")).said
    assert len(_sets(site)) == sets

    report = _well(site.deploy("status", report=str(tmp_path / "report.html")))
    assert "demo, newest proven set 0 min old" in report.said
    assert _sets(site)[-1]["id"] in (tmp_path / "report.html").read_text()


def test_a_reset_only_plans_until_stack_and_host_are_named(site):
    _well(site.deploy("backup"))
    nobody = {"nobody_uses": "papers"} if os.geteuid() != 0 else {}
    planned = _well(site.deploy("reset", **nobody))
    assert "reset of all stores" in planned.said or re.search(r"main +documents +40 +0", planned.said), planned.said
    assert _rows(site) == 40
    refused = _failed(site.deploy("reset", confirm="demo@elsewhere", **nobody))
    assert f"--confirm names demo@elsewhere, this is {CONFIRM}" in refused.said
    assert _rows(site) == 40
    done = _well(site.deploy("reset", confirm=CONFIRM, **nobody))
    assert "the way back: storekeeper" in done.said
    assert _rows(site) == 0
    _well(site.deploy("restore", back="yes", confirm=CONFIRM, **nobody))
    assert _rows(site) == 40


def test_a_migration_is_tried_on_a_copy_until_stack_and_host_are_named(site):
    with open(site.stack_file("demo"), "a", encoding="utf-8") as file:
        file.write(MIGRATION)
    _well(site.deploy("site"))
    nobody = {"nobody_uses": "papers"} if os.geteuid() != 0 else {}
    _well(site.deploy("backup"))
    assert "no set is proven" in _failed(site.deploy("migrate", action="downgrade", **nobody)).said
    _well(site.deploy("prove"))
    _well(site.deploy("migrate", **nobody))
    assert not _has_column(site, "seen"), "only the copy has it"
    planned = _well(site.deploy("migrate", action="stamp", values="0002", **nobody))
    assert "then live, inside a safety set" in planned.said
    refused = _failed(site.deploy("migrate", confirm="demo@elsewhere", **nobody))
    assert f"--confirm names demo@elsewhere, this is {CONFIRM}" in refused.said
    assert not _has_column(site, "seen")
    done = _well(site.deploy("migrate", confirm=CONFIRM, **nobody))
    assert "the way back: storekeeper" in done.said
    assert _has_column(site, "seen")
    assert "seen" in _well(site.deploy("migrate", action="current")).said
    _well(site.deploy("restore", back="yes", confirm=CONFIRM, **nobody))
    assert not _has_column(site, "seen")
    assert "a migration does upgrade" in site.deploy("migrate", action="undo").said


def _has_column(site: Site, name: str) -> bool:
    with closing(sqlite3.connect(site.live("demo") / "main.db")) as database:
        return name in [column for (column,) in database.execute("select name from pragma_table_info('documents')")]


def test_a_damaged_database_is_found_planned_and_made_anew(site):
    _well(site.deploy("backup"))
    path = site.live() / "main.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create index by_title on documents (title)")
    damaged.overwrite(path, *damaged.pages_of(path, "by_title"))
    nobody = {"nobody_uses": "main"} if os.geteuid() != 0 else {}
    assert re.search(r"damage: ", _well(site.deploy("examine", store="main")).said)
    planned = _well(site.deploy("recover", store="main", **nobody))
    assert re.search(r"documents +40 +0", planned.said), planned.said
    before = path.read_bytes()
    assert f"this is {CONFIRM}" in _failed(site.deploy("recover", store="main", confirm="demo@elsewhere", **nobody)).said
    assert path.read_bytes() == before
    done = _well(site.deploy("recover", store="main", confirm=CONFIRM, **nobody))
    assert "the way back: storekeeper" in done.said
    assert _rows(site) == 40
    assert "nothing is wrong with" in _failed(site.deploy("recover", store="main", confirm=CONFIRM, **nobody)).said
    assert "pass --data stack=NAME --data store=NAME" in _failed(site.deploy("recover")).said
    assert "pass --data document=ID" in _failed(site.deploy("history")).said
    assert re.search(r"ok: history +demo", _well(site.deploy("history", document="nosuch")).said)


def test_a_dry_run_types_nothing(untouched):
    before, live = tree(untouched.root), tree(untouched.live())
    for which, data in (
        ("backup", {}),
        ("prove", {}),
        ("verify", {}),
        ("check", {}),
        ("repair", {}),
        ("prune", {}),
        ("restore", {"set": "latest", "confirm": CONFIRM}),
        ("reset", {"confirm": CONFIRM}),
        ("migrate", {"confirm": CONFIRM}),
        ("status", {}),
    ):
        assert _well(untouched.deploy(which, "--dry", **data)).changed == []
    assert (tree(untouched.root), tree(untouched.live())) == (before, live)
    assert not (untouched.root / "state/jobs").exists(), "no verb ever ran"
    assert not Path("storekeeper-report.html").exists()


def test_control_the_same_without_dry_leaves_a_record_of_its_run(site):
    _well(site.deploy("backup"))
    assert len(list((site.root / "state/jobs/demo").glob("*.json"))) == 1


def test_a_backup_with_warnings_ends_well_and_the_warning_is_said(site):
    _well(site.deploy("backup"))
    _delete(site, above=12)
    warned = _well(site.deploy("backup"))
    assert warned.changed == ["Back up demo"]
    assert warned.said.count("holds 12 objects, the set") == 1, warned.said


def test_a_failed_backup_fails_the_deploy_and_says_why_once_and_without_a_traceback(site):
    (site.live() / "main.db").write_bytes(b"no database at all" * 100)
    failed = _failed(site.deploy("backup"))
    assert "failed: backup  demo" in failed.said
    assert failed.said.count("file is not a database") == 1, failed.said
    assert _sets(site) == []


def test_another_run_at_work_fails_the_deploy_and_says_who(site):
    _well(site.deploy("backup"))
    with locks.hold(site.root / "state/demo/lock", "restore"):
        assert "restore has been running since" in _failed(site.deploy("backup")).said
    assert len(_sets(site)) == 1


def test_a_failing_host_leaves_the_others_at_work(site):
    """A second host without the program fails; the first has its set all the same, and the deploy ends with 1."""
    inventory = site.control / "inventory.py"
    inventory.write_text(
        inventory.read_text()
        + "hosts.append(('@fake/broken', {'fake_delay': 0, 'fake_delay_jitter': 0, 'storekeeper_stacks': {'demo': 'x'},\n"
        "    'fake_responses': {'storekeeper': {'success': False, 'stderr': 'sh: 1: storekeeper: not found'}}}))\n"
    )
    ended = site.deploy("backup")
    assert ended.code == 1
    assert len(_sets(site)) == 1
    assert "storekeeper: not found" in ended.said


@pytest.mark.parametrize("which", ["backup", "prove", "verify", "prune"])
def test_a_missing_program_fails_the_host_and_is_never_taken_for_a_host_without_sets(untouched, which):
    data = {"within": "26h"} if which in ("backup", "prove") else {}
    failed = _failed(untouched.deploy(which, "--data", f"storekeeper_program={untouched.root}/nowhere/storekeeper", **data))
    assert failed.changed == []
    assert "not found" in failed.said or "did not answer with a document" in failed.said


def test_a_host_whose_program_is_missing_is_dead_in_the_report(untouched, tmp_path):
    _failed(
        untouched.deploy(
            "status", "--data", f"storekeeper_program={untouched.root}/nowhere/storekeeper", report=str(tmp_path / "report.html")
        )
    )
    assert "This host could not be read: no earlier report has heard of it." in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("which", "data", "said"),
    [
        ("backup", {"within": "soon"}, "expected a duration such as 30m, 26h or 7d"),
        ("backup", {"stack": "nosuch"}, "has no stack 'nosuch'; it has demo"),
        ("backup", {"stack": "null"}, "has no stack 'null'; it has demo"),
        ("prove", {"set": "latest", "within": "7d"}, "not both"),
        ("check", {"stack": "demo"}, "demo declares no rule, so nothing says what its stores must agree on"),
        ("check", {"rule": "library"}, "has no rule 'library'; it has none"),
        ("repair", {"stack": "demo"}, "demo declares no rule"),
        ("undo", {"stack": "demo"}, "demo declares no rule"),
        ("undo", {}, "this works on one stack: pass --data stack=NAME (found none)"),
        ("restore", {}, "give either a set or back=True"),
        ("restore", {"set": "latest", "back": "yes"}, "give either a set or back=True"),
        ("restore", {"set": "latest"}, "a restore changes live data: look at the plan, then pass confirm='demo@HOST'"),
        ("restore", {"set": "--yes", "plan": "yes"}, "--data set= cannot begin with a dash"),
        ("restore", {"set": "latest", "plan": "perhaps"}, "takes yes or no"),
        ("reset", {"confirm": "--yes"}, "cannot begin with a dash"),
        ("prune", {"plan": "perhaps"}, "takes yes or no"),
    ],
)
def test_data_that_cannot_be_meant_is_refused_before_any_host_is_asked(untouched, which, data, said):
    before = tree(untouched.root)
    refused = _failed(untouched.deploy(which, **data))
    assert said in refused.said
    assert "Starting operation" not in refused.said
    assert tree(untouched.root) == before


def test_a_restore_on_a_host_of_several_stacks_wants_one_named(site):
    site.add_stack("mem0")
    assert (
        "a restore works on one stack: pass --data stack=NAME (@local has demo, mem0)" in _failed(site.deploy("restore", set="latest")).said
    )


def test_a_host_without_stacks_is_told_so(tmp_path):
    site = Site(tmp_path)
    for which in ("backup", "prove", "verify", "check", "repair", "prune"):
        assert "no stack is declared for this host: nothing is done" in _well(site.deploy(which)).said


def test_the_runs_of_a_host_are_printed_with_how_they_ended(site):
    assert site.deploy("backup").code == 0
    (site.live() / "main.db").write_bytes(b"no database" * 1000)
    assert site.deploy("backup").code == 1
    shown = site.deploy("jobs")
    assert shown.code == 0, shown.said
    runs = re.findall(r"(ok|failed)  backup demo  since \S+Z  [0-9.]+ s", shown.said)
    assert runs == ["ok", "failed"]
    [job] = re.findall(r"failed  backup demo .*  ([0-9TZ]+-backup-[0-9a-f]{8})", shown.said)
    refused = site.deploy("jobs", stop=job)
    assert refused.code == 1
    assert f"the run {job} has ended (failed)" in refused.said


def test_a_deploy_whose_answer_was_lost_is_answered_by_the_run_that_it_began(site):
    """The first follows as a deploy does, and never fetches the answer."""
    words = f"{sys.prefix}/bin/storekeeper --config {site.root}/etc --json --job backup demo"
    lost = subprocess.run(words.split(), capture_output=True, text=True, check=True)
    job = json.loads(lost.stdout)["job"]
    assert site.deploy("backup").code == 0
    assert len(list((site.root / "state/jobs/demo").glob("*.json"))) == 1, "nothing ran twice"
    assert (site.root / f"state/jobs/demo/{job}.heard").exists()
    assert site.deploy("backup").code == 0
    assert len(list((site.root / "state/jobs/demo").glob("*.json"))) == 2
