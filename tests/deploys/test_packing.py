"""The release that goes to a host: one name for the same files, the engine alone, the versions that this checkout is tested with."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from operations import packing
from tests.harness.program import CHECKOUT

_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)", re.MULTILINE)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the engine that may be changed."""
    copy = Path(shutil.copytree(CHECKOUT / "storekeeper", tmp_path / "storekeeper"))
    monkeypatch.setattr(packing, "_ENGINE", copy)
    return copy


def test_the_same_files_have_the_same_name_wherever_and_whenever_they_are_packed(engine: Path) -> None:
    (engine / "__pycache__").mkdir(exist_ok=True)
    (engine / "__pycache__" / "x.pyc").write_bytes(b"x")
    for path in engine.rglob("*.py"):
        path.touch()
    copied = packing.pack(["sqlite"])
    assert copied.name == packing.pack(["files", "chroma"]).name
    assert copied.wheel == packing.pack([]).wheel
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+-[0-9a-f]{12}", copied.name)


def test_another_byte_or_another_package_is_another_release(engine: Path) -> None:
    names = [packing.pack([]).name, packing.pack(["postgresql"]).name]
    with open(engine / "outcomes.py", "a", encoding="utf-8") as file:
        file.write("\n")
    assert len({*names, packing.pack([]).name}) == 3


def test_the_wheel_holds_the_engine_alone_and_pip_installs_it(tmp_path: Path) -> None:
    release = packing.pack([])
    wheel = tmp_path / release.wheel_name
    wheel.write_bytes(release.wheel)
    inside = zipfile.ZipFile(wheel).namelist()
    assert "storekeeper/stores/postgresql/tables.sql" in inside
    assert not [name for name in inside if "__pycache__" in name or name.startswith(("storekeeper/operations", "storekeeper/templates"))]
    target = tmp_path / "installed"
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", f"--target={target}", str(wheel)]
    subprocess.run(words, check=True, capture_output=True)
    code = "import storekeeper.cli.main, sys; print(storekeeper.cli.main.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env={"PYTHONPATH": str(target)}, check=True, capture_output=True, text=True
    )
    assert found.stdout.strip().startswith(str(target))


def test_a_host_gets_the_versions_that_this_checkout_is_tested_with() -> None:
    tested = dict(_PIN.findall((CHECKOUT / "requirements.lock").read_text()))
    for lock in (CHECKOUT / "operations" / "locks").glob("*.txt"):
        pinned = dict(_PIN.findall(lock.read_text()))
        assert pinned.items() <= tested.items(), lock
        assert lock.read_text().count("--hash=sha256:") >= len(pinned)
    assert {lock.stem for lock in (CHECKOUT / "operations" / "locks").glob("*.txt")} == {"core", *packing.EXTRAS.values()}


def test_packages_are_asked_for_that_run_on_the_hosts_own_libc() -> None:
    tags = packing.platforms("aarch64", (2, 36))
    assert tags[0] == "manylinux_2_36_aarch64"
    assert "manylinux_2_37_aarch64" not in tags
    assert tags[-1] == "manylinux2014_aarch64"


def test_what_pip_says_is_said_when_packages_cannot_be_had(tmp_path: Path) -> None:
    release = packing.Release("0.0.0", {}, {"core": "nosuch-package-of-anybody==0.0.0 --hash=sha256:" + "0" * 64})
    with pytest.raises(RuntimeError, match="nosuch-package-of-anybody"):
        packing.download(release, (3, 11), packing.platforms("x86_64", (2, 36)), tmp_path / "wheels")
