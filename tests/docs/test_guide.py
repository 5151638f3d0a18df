"""The guide, typed as a new user would, from the clone on."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.harness.markdown import blocks
from tests.harness.mutation import copy_checkout
from tests.harness.postgresql import start_server

CHECKOUT = Path(__file__).resolve().parents[2]
GUIDE = CHECKOUT / "docs/guide.md"
_CLONE = 'git clone "$WHERE_YOU_READ_THIS" storekeeper\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory with a checkout in it, whose virtual environment is this one: `make setup` has nothing to do."""
    home = tmp_path_factory.mktemp("home")
    copy_checkout(home / "storekeeper")
    (home / "storekeeper/.venv").symlink_to(CHECKOUT / ".venv")
    return home


def _type(place: Path, text: str) -> str:
    environment = {"HOME": str(place), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    script = f"set -euo pipefail\n{text}"
    done = subprocess.run(["bash", "-c", script], cwd=place / "storekeeper", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{text}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_command_of_the_guide_works_in_its_order(place: Path) -> None:
    first, *others = blocks(GUIDE, "sh")
    assert first == f"{_CLONE}cd storekeeper\nmake setup\n"
    text = "\n".join(others)
    said = _type(place, text)
    assert "proven" in said
    assert "100\n" in said, "all papers are back"
    sets = sorted((place / "second-place/notes").glob("2*"))
    assert len(sets) >= 2
    assert not list((place / "second-place/notes").glob(".*.partial"))
    manifest = json.loads((sets[0] / "manifest.json").read_text())
    assert set(manifest["stores"]) == {"rows", "papers"}


@pytest.mark.slow
def test_a_database_that_only_the_guide_describes_is_kept_proven_and_restored(place: Path, tmp_path: Path) -> None:
    (declared,) = blocks(GUIDE, "yaml")
    with start_server(tmp_path, 18) as server:
        with server.connect() as admin:
            admin.execute("create role shop login password 'not-a-secret-of-anybody'")
            admin.execute("create database shop owner shop")
        with server.connect("shop") as connection:
            connection.execute("create table orders (id int primary key, what text)")
            connection.execute("insert into orders select n, 'order ' || n from generate_series(1, 1000) n")
            connection.execute("alter table orders owner to shop")
        config = tmp_path / "etc"
        (config / "stacks").mkdir(parents=True)
        secret = config / "shop.password"
        secret.write_text("not-a-secret-of-anybody\n")
        secret.chmod(0o600)
        text = declared.replace("/etc/storekeeper/shop.password", str(secret)).replace("/var/run/postgresql", str(server.socket))
        text = text.replace("password:", f"port: {server.port}, programs: {server.programs}, admin: {{user: postgres}}, password:")
        (config / "stacks/shop.yml").write_text(text)
        (config / "storekeeper.yml").write_text(f"repository: {tmp_path}/sets\nstate: {tmp_path}/state\n")
        storekeeper = f"{CHECKOUT}/.venv/bin/storekeeper --config {config}"
        _type(place, f"{storekeeper} backup shop && {storekeeper} prove shop")
        with server.connect("shop") as connection:
            connection.execute("delete from orders where id > 10")
        _type(place, f"{storekeeper} restore shop latest --yes")
        with server.connect("shop") as connection:
            row = connection.execute("select count(*) from orders").fetchone()
        assert row == (1000,)
