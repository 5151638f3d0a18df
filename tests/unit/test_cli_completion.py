"""Completion, in a real bash."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from storekeeper.cli.catalogue import GLOBAL_OPTIONS, VERBS
from storekeeper.cli.completion import bash_script

BASH = shutil.which("bash") or "bash"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = tmp_path_factory.mktemp("etc")
    (config / "stacks").mkdir()
    for name in ("maestro.yml", "mem0.yml", "notes.txt"):
        (config / "stacks" / name).write_text("")
    return config


def completed(typed: str, config) -> list[str]:
    """What bash offers at the end of a line."""
    words = shlex.split(typed) + ([""] if typed.endswith(" ") else [])
    script = f"""
        source /dev/stdin
        COMP_WORDS=({" ".join(shlex.quote(word) for word in words)})
        COMP_CWORD={len(words) - 1}
        _storekeeper
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        [BASH, "--norc", "-c", script],
        input=bash_script(),
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/nonexistent", "STOREKEEPER_CONFIG": str(config)},
    )
    assert done.stderr == ""
    return sorted(word for word in done.stdout.split("\n") if word)


def test_bash_takes_the_script_without_a_complaint():
    done = subprocess.run(["bash", "-n"], input=bash_script(), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "@" not in bash_script().replace("@CONFIG@", "").replace('"${COMPREPLY[@]}"', ""), "every place was filled"


def test_verbs_and_options_are_offered_first(config):
    offered = completed("storekeeper ", config)
    assert {verb.name for verb in VERBS} <= set(offered)
    assert {flag for option in GLOBAL_OPTIONS for flag in option.flags} <= set(offered)
    assert completed("storekeeper re", config) == ["receive", "recover", "repair", "reset", "restore", "resume"]
    assert completed("storekeeper --json re", config) == ["receive", "recover", "repair", "reset", "restore", "resume"]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_each_verb_offers_its_own_options_and_those_of_all(verb, config):
    offered = completed(f"storekeeper {verb.name} -", config)
    own = {flag for option in verb.options for flag in option.flags}
    assert set(offered) == own | {flag for option in GLOBAL_OPTIONS for flag in option.flags}


def test_stacks_are_those_of_the_configuration_that_is_meant(config, tmp_path):
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks/other.yml").write_text("")
    assert completed("storekeeper backup ", config) == ["maestro", "mem0"]
    assert completed("storekeeper backup ma", config) == ["maestro"]
    assert completed(f"storekeeper --config {tmp_path} backup ", config) == ["other"]
    assert completed("storekeeper backup ", tmp_path / "nowhere") == []


def test_a_set_a_shell_and_fixed_values_are_offered_in_their_places(config):
    assert completed("storekeeper verify maestro ", config) == ["latest"]
    assert completed("storekeeper --json verify maestro l", config) == ["latest"]
    assert completed("storekeeper completion ", config) == ["bash"]
    assert completed("storekeeper --color ", config) == ["always", "auto", "never"]
    assert completed("storekeeper backup maestro ", config) == []
    assert completed("storekeeper restore maestro latest --only ", config) == [], "what is free text gets no guess"


def test_directories_are_offered_where_one_is_wanted(config):
    parent = config.parent
    assert str(config) in completed(f"storekeeper --config {parent}/", config)
    assert str(config) in completed(f"storekeeper restore maestro latest --stage-dir {parent}/", config)
