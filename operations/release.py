"""The host program on a host: a directory for each release, with a virtual environment of its own, and a link that names the current one.

ROOT/releases/VERSION-HASH/    complete once it has `.complete`; never changed afterwards
ROOT/current                   the link, exchanged in one step
"""

from __future__ import annotations

import io
import shlex
import tarfile
import tempfile
import threading
from collections.abc import Generator, Sequence
from functools import cache
from pathlib import Path

from pyinfra import host
from pyinfra.api import FileUploadCommand, FunctionCommand, Host, OperationValueError, State, StringCommand, operation
from pyinfra.api.facts import get_fact

from .facts.release import Found, Releases
from .packing import FLOOR, Release, download, pack, platforms
from .program import RELEASES, refused, say, unread, value

PYTHON = "/usr/bin/python3"
_TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

_PACKING = threading.Lock()  # hosts are worked on side by side

Commands = Generator[StringCommand | FileUploadCommand | FunctionCommand, None, None]


@operation()
def installed(
    kinds: Sequence[str] = (),
    root: str = RELEASES,
    python: str = PYTHON,
    version: str | None = None,
    wheelhouse: bool = False,
    keep: int = 3,
) -> Commands:
    """
    Have the host program on a host, and make it the current one. A release is made once, and switched to when it has shown that it starts.

    + kinds: the kinds of stores that the host keeps, which decide what is installed beside the core
    + root: the directory of the releases
    + python: the interpreter to make them with, 3.11 or later, with venv
    + version: a release that is there already, to go back to it; else the one of this checkout
    + wheelhouse: send the packages along, for a host that reaches no package index
    + keep: how many releases stay, the current one among them; what runs is never removed

    **Example:**

    .. code:: python

        release.installed(name="The program", kinds=["postgresql"])
    """
    if keep < 1:
        raise OperationValueError(f"keep is the number of releases that stay, at least 1, not {keep}")
    asked = {"root": value("root", root), "python": value("python", python)}
    found = get_fact(host.state, host, Releases, kwargs=asked, apply_failed_hosts=False)
    if found is None:
        yield unread("which releases of the program there are")
        return
    release = pack(kinds) if version is None else None
    wanted = release.name if release else value("version", version)
    if wanted == found.current and wanted in found.complete:
        host.noop(f"release {wanted} is current")
        return
    if wanted not in found.complete:
        if release is None:
            there = ", ".join(found.complete) or "none"
            yield refused(f"there is no release {wanted} below {root}/releases to go back to; there is {there}")
            return
        if (why := _refusal(found, python, wheelhouse=wheelhouse)) is not None:
            yield refused(why)
            return
        yield from _make(release, found, root, python, wheelhouse=wheelhouse)
    link = shlex.quote(f"{root}/current")
    yield StringCommand(f"ln -sfn releases/{shlex.quote(wanted)} {link}.new && mv -T {link}.new {link} && sync -f {shlex.quote(root)}")
    gone = [each for each in found.complete if each not in {wanted, found.current} | found.used][max(keep - 2, 0) :]
    if gone:
        yield StringCommand("rm -rf " + " ".join(shlex.quote(f"{root}/releases/{each}") for each in gone))


def _refusal(found: Found, python: str, *, wheelhouse: bool) -> str | None:
    """Why a release cannot be made, in a sentence with what to do; None when it can."""
    if found.python is None:
        return f"{python} does not run: install Python {FLOOR[0]}.{FLOOR[1]} or later (apt-get install python3 python3-venv)"
    if found.python < FLOOR:
        return f"{python} is Python {found.python[0]}.{found.python[1]}, the program needs {FLOOR[0]}.{FLOOR[1]} or later"
    if not found.has_venv:
        return f"{python} has no venv: apt-get install python3-venv"
    if wheelhouse and found.libc is None:
        return "this host has no glibc, for which packages could be sent along: let it reach a package index"
    return None


def _make(release: Release, found: Found, root: str, python: str, *, wheelhouse: bool) -> Commands:
    tags = tuple(platforms(found.machine, found.libc)) if found.libc else ()
    archive = _archive(release.name, found.python, tags if wheelhouse else None)
    incoming = f"{root}/.{release.name}"
    quoted, sent = shlex.quote(incoming), shlex.quote(f"{incoming}.tar")
    yield StringCommand(f"umask 022 && mkdir -p {shlex.quote(root)}/releases && rm -rf {quoted} && mkdir -m 700 {quoted}")
    yield FunctionCommand(_pack, (archive, release, found.python, tags if wheelhouse else None), {})
    # below the home of whoever logs in: pyinfra's own name for it in /tmp can be foreseen, and what is in it becomes root's program
    yield FileUploadCommand(str(archive), f"{incoming}.tar", remote_temp_filename=f".storekeeper-{release.name}.tar")
    words = " ".join(shlex.quote(word) for word in ("sh", f"{incoming}/release.sh", root, release.name, python))
    yield StringCommand(f"tar -xf {sent} -C {quoted} --no-same-owner && {words} && rm -rf {quoted} {sent}")


@cache
def _room() -> tempfile.TemporaryDirectory[str]:
    """Where archives are made for the hosts of this run; it is gone when the run is."""
    return tempfile.TemporaryDirectory(prefix="storekeeper-releases-")


def _archive(name: str, python: Sequence[int] | None, tags: Sequence[str] | None) -> Path:
    """One for all hosts that need the same: the packages in it are for one Python on one kind of machine."""
    for_whom = "-".join(["any"] if tags is None else [*map(str, python or ()), *tags[:1]])
    return Path(_room().name, f"{name}-{for_whom}.tar")


def _pack(state: State, host: Host, archive: Path, release: Release, python: Sequence[int], tags: Sequence[str] | None) -> bool:
    """Write what goes to the hosts, once; with the packages where they reach no index."""
    with _PACKING:
        if archive.exists():
            return True
        wheels = archive.with_suffix("")
        if tags is not None:
            try:
                download(release, python, tags, wheels)
            except RuntimeError as error:
                return say(state, host, f"the packages of {release.name} could not be fetched on this machine: {error}")
        with tarfile.open(archive.with_suffix(".new"), "w") as tar:
            _add(tar, "release.sh", (_TEMPLATES / "release.sh").read_bytes())
            _add(tar, release.wheel_name, release.wheel)
            for name, text in release.locks.items():
                _add(tar, f"locks/{name}.txt", text.encode())
            for wheel in sorted(wheels.glob("*.whl")):
                _add(tar, f"wheels/{wheel.name}", wheel.read_bytes())
        archive.with_suffix(".new").rename(archive)
    return True


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))
