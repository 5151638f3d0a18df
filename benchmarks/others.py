"""The programs that we are set beside: installed below `.cache/benchmarks` when a part first needs them, and used by nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.measuring import run
from tests.harness.program import CHECKOUT

_CACHE = CHECKOUT / ".cache/benchmarks"
_PYTHON = ("borgmatic==2.1.10", "borgbackup==1.4.5")
_LIBRARIES = ("libacl1", "liblz4-1", "libxxhash0", "libzstd1", "libssl3")
_HEADERS = ("libacl1-dev", "liblz4-dev", "libxxhash-dev", "libzstd-dev", "libssl-dev")


def borgmatic() -> Path:
    """The directory of borgmatic and borg, the newest of both. borg is compiled, with headers from Debian's packages."""
    programs = _CACHE / "others/bin"
    if not (programs / "borg").exists():
        libraries = _unpacked("libraries", (*_LIBRARIES, *_HEADERS))
        venv.create(programs.parent, with_pip=True, clear=True)
        prefixes = {f"BORG_LIB{name}_PREFIX": f"{libraries}/usr" for name in ("ACL", "LZ4", "ZSTD", "XXHASH")}
        found = " ".join(f"-L{folder}" for folder in sorted({path.parent for path in libraries.rglob("*.so")}))
        flags = {"CFLAGS": f"-I{libraries}/usr/include", "LDFLAGS": found}
        run([programs / "pip", "install", "--quiet", *_PYTHON], env={**os.environ, **prefixes, **flags})
    return programs


def restic() -> Path:
    """Debian's restic."""
    return _unpacked("restic", ("restic",)) / "usr/bin/restic"


def versions() -> dict[str, str]:
    """Of those that are installed."""
    programs = {"borgmatic": ("others/bin/borgmatic", "--version"), "borg": ("others/bin/borg", "--version")}
    programs["restic"] = ("restic/usr/bin/restic", "version")
    return {name: _version(_CACHE / program, word) for name, (program, word) in programs.items() if (_CACHE / program).exists()}


def _version(program: Path, word: str) -> str:
    said = subprocess.run([program, word], capture_output=True, check=True, text=True).stdout.split()
    return next(each for each in said if each[0].isdigit())


def _unpacked(name: str, packages: tuple[str, ...]) -> Path:
    """Debian packages, fetched and unpacked without being installed."""
    place = _CACHE / name
    if not place.exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            sys.exit(f"{', '.join(packages)}: only to be had from Debian's packages here")
        fetched = _CACHE / f"{name}.fetched"
        fetched.mkdir(parents=True, exist_ok=True)
        run(["apt-get", "download", *packages], cwd=fetched)
        unpacked = _CACHE / f"{name}.unpacked"
        for package in fetched.glob("*.deb"):
            run(["dpkg", "-x", package, unpacked])
        shutil.rmtree(fetched)
        unpacked.rename(place)
    return place
