"""PostgreSQL's own programs: where they are, which version, and which compression the dump program really has."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from storekeeper.host.processes import SEARCH_PATH, Command, run
from storekeeper.outcomes import Refused, StorekeeperError, Unknown

_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Programs:
    """A directory of programs that belong together, and their major version."""

    directory: Path
    major: int
    version: str

    def path(self, program: str) -> Path:
        """Raises Refused when the program is missing or may not be executed."""
        path = self.directory / program
        if not path.exists():
            ours = _DEBIAN in path.parents or str(self.directory) in SEARCH_PATH.split(":")
            raise Refused(f"{path} is missing", next=_install(program, self.major) if ours else f"ls {self.directory}")
        if not os.access(path, os.X_OK):
            raise Refused(f"{path} is there but may not be executed", next=f"chmod 755 {path}")
        return path


def find(declared: Path | None, major: int) -> Programs:
    """The programs for a server of this major version: where declared, else the distribution's place, else PATH.

    Raises Refused when pg_dump is not there or not executable.
    """
    for directory in _places(declared, major):
        if declared is not None or (directory / "pg_dump").exists():
            path = Programs(directory, major, "").path("pg_dump")
            version = version_of(path)
            return Programs(directory, major_of(version), version)
    raise Refused(f"no pg_dump was found for PostgreSQL {major}", next=_install("pg_dump", major))


def find_for_backup(declared: Path | None, server_version: str) -> Programs:
    """Programs that can dump this server. Raises Refused, naming both versions, when they are older than it."""
    major = major_of(server_version)
    programs = find(declared, major)
    programs.path("pg_restore")
    if programs.major < major:
        raise Refused(
            f"pg_dump in {programs.directory} is {programs.version}, the server is {server_version}:"
            " an older pg_dump cannot read a newer server",
            next=_install("pg_dump", major),
        )
    return programs


def find_for_restore(declared: Path | None, record_version: str, archive_version: str) -> Programs:
    """Programs that can read an archive. Raises Unknown when they are missing or, naming both versions, older than what wrote it."""
    needed = major_of(archive_version)
    try:
        programs = find(declared, max(needed, major_of(record_version)))
        programs.path("pg_restore")
    except StorekeeperError as error:
        raise Unknown(error.message, next=error.next) from error
    if programs.major < needed:
        raise Unknown(
            f"the archive was written by pg_dump {archive_version}, pg_restore in {programs.directory} is only {programs.version}",
            next=_install("pg_restore", needed),
        )
    return programs


def version_of(program: Path) -> str:
    """`18.4` of `pg_dump (PostgreSQL) 18.4 (Debian 18.4-1)`."""
    said = run(Command([program, "--version"]), timeout=30).stdout.decode(errors="replace")
    found = re.search(r"\(PostgreSQL\) ([0-9]+(?:\.[0-9]+)*\w*)", said)
    if found is None:
        raise Refused(f"{program} --version says {said.strip()!r}, which is no version of PostgreSQL")
    return found[1]


def major_of(version: str) -> int:
    """18 of `18.4`, `18beta1` and `18.4 (Debian 18.4-1)`."""
    found = re.match(r"[0-9]+", version)
    if found is None:
        raise Refused(f"{version!r} is no version of PostgreSQL")
    return int(found[0])


def has_zstd(programs: Programs) -> bool:
    """Whether this build of pg_dump compresses with zstd. It says so only when it is run: --compress is looked at before it connects."""
    nowhere = {"PGHOST": "/nonexistent", "PGCONNECT_TIMEOUT": "2"}
    command = Command([programs.path("pg_dump"), "--format=custom", "--compress=zstd:1", "--no-password", "--dbname=nowhere"], nowhere)
    said = run(command, accept=(0, 1), timeout=30).stderr
    return "compress" not in said and "connection" in said


def zstd_program() -> Path | None:
    found = shutil.which("zstd", path=SEARCH_PATH)
    return None if found is None else Path(found)


def _places(declared: Path | None, major: int) -> list[Path]:
    if declared is not None:
        return [declared]
    found = shutil.which("pg_dump", path=SEARCH_PATH)
    return [_DEBIAN / str(major) / "bin", *([Path(found).parent] if found else [])]


def _install(program: str, major: int) -> str:
    package = "postgresql" if program in ("initdb", "postgres") else "postgresql-client"
    return f"apt-get install {package}-{major}"
