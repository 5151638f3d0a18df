"""The vocabulary as it is imported: from a checkout, from the wheel, and never from somebody else's package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.wheel import unpacked_wheel

CHECKOUT = Path(__file__).resolve().parents[2]
_RENDER = """
import sys
from datetime import UTC, datetime
from {package} import consistency, declared, report, schedule, sets
from {package}.facts.sets import Sets
page = report.render({{"h": None}}, datetime.now(UTC))
assert "could not be read" in page and "--ink" in page
print(report.__file__)
"""


def _python(code: str, *paths: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process that finds only these places, and the libraries of this environment behind them."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONSAFEPATH": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_from_a_checkout_operations_are_imported_by_their_bare_name(tmp_path):
    done = _python(_RENDER.format(package="operations"), CHECKOUT, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, str(CHECKOUT / "operations/report.py")), done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_carries_the_operations_and_their_templates(wheel, tmp_path):
    done = _python(_RENDER.format(package="storekeeper.operations"), wheel, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, str(wheel / "storekeeper/operations/report.py")), done.stderr
    assert {path.name for path in (wheel / "storekeeper/templates").iterdir()} >= {
        path.name for path in (CHECKOUT / "templates").glob("*.*")
    }


def test_the_wheel_takes_no_name_but_its_own(wheel):
    names = {path.name for path in wheel.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"storekeeper"}


def test_every_module_of_the_checkout_is_in_the_wheel(wheel):
    wanted = {
        path.relative_to(CHECKOUT) for path in (CHECKOUT / "storekeeper").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {Path("storekeeper") / path.relative_to(CHECKOUT) for path in (CHECKOUT / "operations").rglob("*.py")}
    found = {path.relative_to(wheel) for path in wheel.rglob("*") if path.is_file()}
    assert wanted - found == set()


def test_the_host_program_needs_no_pyinfra(wheel, tmp_path):
    without = "import sys; sys.modules['pyinfra'] = None; sys.modules['jinja2'] = None\n"
    done = _python(f"{without}from storekeeper.cli.main import main; sys.exit(main(['--version']))", wheel, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def _pyinfra(cwd: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [f"{sys.prefix}/bin/pyinfra", *words],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what pyinfra reads of a checkout, with a deploy that says that it ran."""
    for part in ("operations", "templates"):
        shutil.copytree(CHECKOUT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "config.py", tmp_path)
    (tmp_path / "deploy.py").write_text("from pyinfra.operations import files\nfiles.file(path='ran')\n")
    return tmp_path


def test_a_deploy_from_the_checkout_runs(checkout):
    done = _pyinfra(checkout, "-y", "@local", "deploy.py")
    assert done.returncode == 0, done.stderr
    assert (checkout / "ran").exists()


def test_operations_of_another_distribution_are_noticed_before_any_host_is_touched(checkout, tmp_path):
    other = tmp_path / "other"
    (other / "operations").mkdir(parents=True)
    (other / "operations/__init__.py").touch()
    done = _pyinfra(checkout, "-y", "@local", "deploy.py", PYTHONPATH=str(other))
    assert done.returncode == 1
    assert f"{other}/operations/__init__.py would be used as `operations`" in done.stderr
    assert not (checkout / "ran").exists()


def test_control_without_the_guard_the_other_distribution_is_used_in_silence(checkout, tmp_path):
    other = tmp_path / "other"
    (other / "operations").mkdir(parents=True)
    (other / "operations/__init__.py").touch()
    (checkout / "config.py").unlink()
    (checkout / "deploy.py").write_text("import operations\nopen('used', 'w').write(operations.__file__)\n")
    _pyinfra(checkout, "-y", "@local", "deploy.py", PYTHONPATH=str(other))
    assert (checkout / "used").read_text() == f"{other}/operations/__init__.py"


def test_another_version_of_pyinfra_is_refused(checkout):
    config = checkout / "config.py"
    config.write_text(config.read_text().replace(">=3.10,<3.11", ">=3.11"))
    done = _pyinfra(checkout, "-y", "@local", "deploy.py")
    assert done.returncode != 0
    assert "pyinfra version" in done.stderr.lower()
    assert not (checkout / "ran").exists()
