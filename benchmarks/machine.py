"""What a run was measured on and with, in words that name no host and no path."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path

import storekeeper
from benchmarks import others
from storekeeper.host import locks
from tests.harness.postgresql import programs_of


def machine() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "file system": locks.file_system_type(Path("/var/tmp")),
        "kernel": ".".join(platform.release().split("-")[0].split(".")[:2]),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux").split(" (")[0],
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def versions() -> dict[str, str]:
    postgres = subprocess.run([programs_of(18) / "postgres", "--version"], capture_output=True, check=True, text=True).stdout.split()
    return {
        "Storekeeper": storekeeper.__version__,
        "CPython": platform.python_version(),
        "PostgreSQL": postgres[-1],
        "SQLite": sqlite3.sqlite_version,
        "chromadb": metadata.version("chromadb"),
        **others.versions(),
    }
