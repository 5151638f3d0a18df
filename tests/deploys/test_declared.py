"""What an inventory and `--data` declare: checked on the control machine, and read as it was meant."""

from __future__ import annotations

import functools
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from operations import declared
from operations.program import Program
from operations.schedule import cron_lines, owner_of
from tests.deploys.fake import fake_host

CHECKOUT = Path(__file__).resolve().parents[2]
STACK = "stack: {name}\nstores:\n  main: {{kind: sqlite, path: /srv/app/main.db}}\n"


@functools.cache
def as_pyinfra_reads(typed: str) -> object:
    """What becomes of `--data key=typed`; in a process of its own, because pyinfra's command line changes the whole interpreter."""
    code = "import json, sys; from pyinfra_cli.util import parse_cli_arg; print(json.dumps(parse_cli_arg(sys.argv[1])))"
    return json.loads(subprocess.run([sys.executable, "-c", code, typed], check=True, capture_output=True).stdout)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("latest", "latest"),
        ("20250109T030000Z-000123", "20250109T030000Z-000123"),
        ("20250109T030000Z", "20250109T030000Z"),
        ("20250109_030000", "20250109_030000"),
        ("20250109", "20250109"),
    ],
)
def test_a_set_is_the_one_that_was_typed_although_pyinfra_reads_digits_as_a_number(typed, meant):
    with fake_host(set=as_pyinfra_reads(typed)) as fake:
        assert declared.chosen_set(fake.host) == meant


def test_control_pyinfra_loses_the_line_in_a_time():
    assert as_pyinfra_reads("20250109_030000") == 20250109030000


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("4711", "4711"),
        ('"0042"', "0042"),
        ('"12_3"', "12_3"),
        ("doc-0042", "doc-0042"),
        ('"1e5"', "1e5"),
        ('"true"', "true"),
        ("a b", "a b"),
    ],
)
def test_an_id_in_quotes_of_its_own_is_the_one_that_was_typed(typed, meant):
    with fake_host(document=as_pyinfra_reads(typed)) as fake:
        assert declared.text(fake.host, "document") == meant


@pytest.mark.parametrize("typed", ["0042", "12_3", "1e5", "1.50", "true", "null", "[1]", "00042", "4711"])
@pytest.mark.parametrize(
    "words", [["--data", "document={}"], ["--data=document={}"], ["--data", "document=first", "--data", "document={}"]]
)
def test_an_id_is_the_one_that_stands_on_the_command_line(typed, words, monkeypatch):
    around = ["pyinfra", "-y", "inventory.py", "deploys/check.py", "--data", "documents=none"]
    monkeypatch.setattr(sys, "argv", [*around, *(word.format(typed) for word in words), "--data", "owner=0042"])
    with fake_host(document=as_pyinfra_reads(typed), owner=42) as fake:
        assert (declared.text(fake.host, "document"), declared.text(fake.host, "owner")) == (typed, "0042")


def test_what_an_inventory_declares_is_not_looked_for_on_the_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pyinfra", "--data", "document"])
    with fake_host(document="0042", owner=42) as fake:
        assert (declared.text(fake.host, "document"), declared.text(fake.host, "owner")) == ("0042", "42")


@pytest.mark.parametrize(("typed", "read"), [("0042", "42"), ("12_3", "123")])
def test_control_by_what_pyinfra_made_of_it_another_document_is_meant(typed, read):
    with fake_host(document=as_pyinfra_reads(typed)) as fake:
        assert declared.text(fake.host, "document") == read


@pytest.mark.parametrize("typed", ["", "true", "null", "[1]", '{"a": 1}', "1.5"])
@pytest.mark.parametrize("read", [declared.chosen_set, declared.within, declared.chosen_stacks])
def test_a_value_that_is_no_word_is_refused_and_never_means_all(read, typed):
    data = {key: as_pyinfra_reads(typed) for key in ("set", "within", "stack")}
    with fake_host(**data, storekeeper_stacks={"demo": "x"}) as fake, pytest.raises(SystemExit, match="takes a word"):
        read(fake.host)


def test_what_was_not_given_is_none():
    with fake_host() as fake:
        assert (declared.chosen_set(fake.host), declared.within(fake.host), declared.names(fake.host, "only")) == (None, None, ())


@pytest.mark.parametrize(("typed", "meant"), [("yes", True), ("true", True), ("1", True), ("no", False), ("False", False), ("0", False)])
def test_a_yes_or_no_is_read_in_all_its_spellings(typed, meant):
    with fake_host(storekeeper_sudo=as_pyinfra_reads(typed)) as fake:
        assert declared.sudo(fake.host) is meant


@pytest.mark.parametrize("typed", ["maybe", "2", "", "null"])
def test_anything_else_is_neither_yes_nor_no(typed):
    with fake_host(plan=as_pyinfra_reads(typed)) as fake, pytest.raises(SystemExit, match="takes yes or no"):
        declared.flag(fake.host, "plan")


def test_a_length_of_time_is_refused_before_any_host_is_touched():
    with fake_host(within="soon") as fake, pytest.raises(SystemExit, match="such as 30m, 26h or 7d, found 'soon'"):
        declared.within(fake.host)


def test_a_deploy_works_on_all_stacks_of_the_host_or_on_the_one_that_was_asked_for():
    stacks = {"mem0": "x", "maestro": "x"}
    with fake_host(storekeeper_stacks=stacks) as fake:
        assert declared.chosen_stacks(fake.host) == ["maestro", "mem0"]
    with fake_host(storekeeper_stacks=stacks, stack="mem0") as fake:
        assert declared.chosen_stacks(fake.host) == ["mem0"]
    with (
        fake_host(storekeeper_stacks=stacks, stack="mem1") as fake,
        pytest.raises(SystemExit, match="has no stack 'mem1'; it has maestro, mem0"),
    ):
        declared.chosen_stacks(fake.host)


def test_a_host_without_stacks_says_that_nothing_is_done():
    with fake_host() as fake:
        assert declared.chosen_stacks(fake.host) == []
        assert "no stack is declared for this host: nothing is done" in fake.said.text


def test_every_mistake_of_every_stack_file_is_said_at_once(tmp_path: Path):
    (tmp_path / "a.yml").write_text(STACK.format(name="a").replace("sqlite", "sqllite") + "bakup: {}\n")
    stacks = {"a": tmp_path / "a.yml", "b": STACK.format(name="other"), "good": STACK.format(name="good")}
    with fake_host(storekeeper_stacks=stacks) as fake, pytest.raises(SystemExit) as refusal:
        declared.stacks(fake.host)
    said = str(refusal.value)
    assert f"{tmp_path}/a.yml:3:16: stores.main.kind" in said
    assert 'unknown key "bakup"' in said
    assert "declares the stack 'other', the inventory calls it 'b'" in said
    assert "good" not in said


def test_a_stack_file_that_is_not_there_is_named():
    with fake_host(storekeeper_stacks={"a": "inventories/stacks/nowhere.yml"}) as fake, pytest.raises(SystemExit, match=r"nowhere\.yml"):
        declared.stacks(fake.host)


def test_stacks_that_are_no_mapping_are_refused():
    with fake_host(storekeeper_stacks=["a"]) as fake, pytest.raises(SystemExit, match="storekeeper_stacks"):
        declared.stacks(fake.host)


def test_a_schedule_becomes_a_line_that_cron_and_its_shell_read_as_meant():
    text = STACK.format(name="a") + "schedule: [{verb: verify, arguments: ['--all'], at: '5 */6 * * 1-5'}]\n"
    with fake_host(storekeeper_stacks={"a": text}) as fake:
        (stack,) = declared.stacks(fake.host)
    line, _ = cron_lines(stack.stack, Program("/opt/100% of it/storekeeper", "/etc/storekeeper"), "host")
    assert line.time == "5 */6 * * 1-5"
    assert line.command == r"'/opt/100\% of it/storekeeper' --config /etc/storekeeper --quiet verify a --all"


def test_files_in_the_systems_own_directory_of_schedules_belong_to_root_whoever_the_program_runs_as():
    assert (owner_of("/etc/cron.d", "app"), owner_of("/srv/app/cron.d", "app")) == ("root", "app")


def test_the_documented_defaults_are_the_ones_that_hold():
    documented = runpy.run_path(str(CHECKOUT / "inventories/group_data/all.py"))
    assert {key: documented[key] for key in declared.DEFAULTS} == declared.DEFAULTS
    assert {key for key in documented if key.startswith("storekeeper_")} == {
        *declared.DEFAULTS,
        "storekeeper_sudo",
        "storekeeper_stacks",
        "storekeeper_wheelhouse",
        "storekeeper_patience",
        "storekeeper_secrets",
        "storekeeper_users",
        "storekeeper_directories",
        "storekeeper_logs",
    }


def test_an_inventory_without_the_documented_defaults_means_the_same():
    with fake_host(storekeeper_cron="/srv/cron.d/") as fake:
        assert declared.place(fake.host, "storekeeper_state") == "/var/lib/storekeeper"
        assert declared.place(fake.host, "storekeeper_cron") == "/srv/cron.d"
        assert declared.user(fake.host) == "root"


@pytest.mark.parametrize("given", ["sets", "", "/", "/srv/../etc", "/srv/a\nb", None, 5, "-rf"])
def test_a_place_that_is_no_plain_absolute_path_is_refused_before_any_host_is_touched(given):
    with fake_host(storekeeper_repository=given) as fake, pytest.raises(SystemExit, match="storekeeper_repository takes an absolute path"):
        declared.place(fake.host, "storekeeper_repository")


@pytest.mark.parametrize("given", ["root; x", "a b", "", "-u", "* * * * *", None, "x\ny", "1x"])
def test_what_could_not_be_a_user_never_stands_on_a_line_of_cron(given):
    with fake_host(storekeeper_user=given) as fake, pytest.raises(SystemExit, match="storekeeper_user takes the name of a user"):
        declared.user(fake.host)
