"""The direction of imports, and what the host program never needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([program, "--no-cache"], cwd=directory, capture_output=True, text=True, check=False)


def imported_by(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_imports_point_downward_only() -> None:
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout


def test_an_import_that_points_upward_or_sideways_is_found(tmp_path: Path) -> None:
    """The control: the same contract fails when the lowest room imports the highest, and when one kind of store imports another."""
    kinds = [f"storekeeper/stores/{kind}" for kind in ("postgresql", "sqlite", "chroma", "files")]
    for package in ("storekeeper", "storekeeper/cli", "storekeeper/host", "storekeeper/stores", *kinds, "operations"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "storekeeper" / "outcomes.py").touch()
    (tmp_path / ".importlinter").write_bytes((ROOT / ".importlinter").read_bytes())
    assert lint(tmp_path).returncode == 0
    for file, line in (("host/low.py", "import storekeeper.cli"), ("stores/sqlite/copy.py", "import storekeeper.stores.chroma")):
        wrong = tmp_path / "storekeeper" / file
        wrong.write_text(f"{line}\n")
        assert lint(tmp_path).returncode == 1
        wrong.unlink()


def test_the_host_program_never_imports_pyinfra() -> None:
    files = sorted((ROOT / "storekeeper").rglob("*.py"))
    assert len(files) > 20
    assert [file for file in files if imported_by(file) & {"pyinfra", "operations"}] == []
    assert "pyinfra" in set().union(*(imported_by(file) for file in (ROOT / "operations").rglob("*.py")))
