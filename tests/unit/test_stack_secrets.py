"""A secret arrives whole, from private files only, and no message holds a part of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storekeeper.outcomes import Refused
from storekeeper.stack.secrets import read_secret
from storekeeper.stack.types import SecretReference

CANARY = "hunter2-canary"
SECRETS = {
    "single quote": "it's",
    "double quote": 'say "it"',
    "percent": "50%s%d",
    "dollar": "$HOME$(id)${x}",
    "backslash": "a\\n\\",
    "leading dash": "-rf --help",
    "backtick": "`id`",
    "spaces around": "  two  ",
    "colon and at": "a:b@c/d",
    "tabulator": "a\tb",
    "hash": "#x;&|<>*?",
    "unicode": "pässwörd-Ж-密码-🔑",
    "200 characters": "x" * 200,
}


def secret_file(directory: Path, data: bytes, mode: int = 0o600) -> SecretReference:
    file = directory / "secret"
    file.write_bytes(data)
    file.chmod(mode)
    return SecretReference(file=file)


def refusal(reference: SecretReference) -> str:
    with pytest.raises(Refused) as caught:
        read_secret(reference, "the password of main")
    text = f"{caught.value.message} {caught.value.next} {caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert CANARY not in text
    assert caught.value.message.startswith("the password of main: ")
    return caught.value.message


@pytest.mark.fault("H8")
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_never_cut_or_changed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = SECRETS[name]
    assert read_secret(secret_file(tmp_path, secret.encode()), "x") == secret
    assert read_secret(secret_file(tmp_path, secret.encode() + b"\n"), "x") == secret
    monkeypatch.setenv("STOREKEEPER_TEST_SECRET", secret)
    assert read_secret(SecretReference(env="STOREKEEPER_TEST_SECRET"), "x") == secret


@pytest.mark.control("H8")
def test_the_usual_ways_to_read_a_secret_change_some_of_these(tmp_path: Path) -> None:
    """The control: stripping, and a shell, do not give back what was stored."""
    assert SECRETS["spaces around"].strip() != SECRETS["spaces around"]
    shell = subprocess.run(
        ["sh", "-c", 'read x; printf %s "$x"'], input=SECRETS["backslash"].encode() + b"\n", capture_output=True, check=True
    )
    assert shell.stdout.decode() != SECRETS["backslash"]


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_private_modes_are_taken(tmp_path: Path, mode: int) -> None:
    assert read_secret(secret_file(tmp_path, b"x", mode), "x") == "x"


@pytest.mark.fault("H9")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o666, 0o601])
def test_a_file_that_others_may_reach_is_refused_and_named_with_its_mode(tmp_path: Path, mode: int) -> None:
    said = refusal(secret_file(tmp_path, CANARY.encode(), mode))
    assert f"{tmp_path / 'secret'} has mode {mode:04o}" in said


@pytest.mark.fault("H9")
def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(SecretReference(file=tmp_path / "gone"))


@pytest.mark.fault("H9")
def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory" in refusal(SecretReference(file=tmp_path))


@pytest.mark.fault("H9")
def test_a_named_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "no regular file" in refusal(SecretReference(file=tmp_path / "pipe"))


@pytest.mark.fault("H9")
@pytest.mark.parametrize("data", [b"", b"\n"])
def test_an_empty_file_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "is empty" in refusal(secret_file(tmp_path, data))


@pytest.mark.fault("H8")
@pytest.mark.parametrize("rest", [b"\n\n", b"\nmore", b"\r\n", b"\0", b"\0more\n"])
def test_more_than_one_line_of_text_is_refused_not_cut(tmp_path: Path, rest: bytes) -> None:
    assert "expected one line of text" in refusal(secret_file(tmp_path, CANARY.encode() + rest))


def test_bytes_that_are_no_text_are_refused_without_showing_them(tmp_path: Path) -> None:
    assert "is not UTF-8 text" in refusal(secret_file(tmp_path, CANARY.encode() + b"\xff"))


def test_a_whole_key_file_by_mistake_is_refused(tmp_path: Path) -> None:
    assert "longer than 10000 bytes" in refusal(secret_file(tmp_path, CANARY.encode() * 1000))


def test_a_link_counts_by_what_it_leads_to(tmp_path: Path) -> None:
    reference = secret_file(tmp_path, CANARY.encode())
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    assert read_secret(SecretReference(file=tmp_path / "link"), "x") == CANARY
    secret_file(tmp_path, CANARY.encode(), 0o644)
    assert "mode 0644" in refusal(SecretReference(file=tmp_path / "link"))
    assert reference.file is not None


@pytest.mark.fault("H9")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to somebody else")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    reference = secret_file(tmp_path, CANARY.encode())
    os.chown(tmp_path / "secret", 65534, 65534)
    assert "belongs to user 65534" in refusal(reference)


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_refused(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOREKEEPER_TEST_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("STOREKEEPER_TEST_SECRET", value)
    assert "STOREKEEPER_TEST_SECRET is not set or empty" in refusal(SecretReference(env="STOREKEEPER_TEST_SECRET"))


def test_a_failure_shows_no_secret_even_in_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(CANARY.encode() + b"\xff")
    file.chmod(0o600)
    code = (
        "import pathlib, sys; from storekeeper.stack.secrets import read_secret; from storekeeper.stack.types import SecretReference;"
        "read_secret(SecretReference(file=pathlib.Path(sys.argv[1])), 'x')"
    )
    ended = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert ended.returncode == 1
    assert "is not UTF-8 text" in ended.stderr
    assert CANARY not in ended.stderr
