"""The host program as it goes to a host: a wheel of the engine alone, and the locked packages that it needs there."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

import storekeeper

EXTRAS = {"postgresql": "postgresql"}  # which lock file a kind of store asks for, beside the core
FLOOR = (3, 11)
_LOCKS = Path(__file__).with_name("locks")
_ENGINE = Path(storekeeper.__file__).parent
_CONTROL_SIDE = ("operations", "templates")  # a wheel carries them inside the package; a host has no use for them
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes from the same files, whenever they are packed
_NAME = "storekeeper"


@dataclass(frozen=True)
class Release:
    """One version of the program with its packages, named by what is in it: the same files give the same name anywhere."""

    version: str
    files: Mapping[str, bytes]  # of the wheel, by their paths in it
    locks: Mapping[str, str]

    @cached_property
    def name(self) -> str:
        digest = hashlib.sha256(_record(self.files).encode())
        for lock in sorted(self.locks):
            digest.update(f"{lock}\n{self.locks[lock]}".encode())
        return f"{self.version}-{digest.hexdigest()[:12]}"

    @property
    def wheel(self) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in self.files.items():
                entry = zipfile.ZipInfo(path, _EPOCH)
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
        return packed.getvalue()

    @property
    def wheel_name(self) -> str:
        """The file name that pip wants (PEP 427)."""
        return f"{_NAME}-{self.version}-py3-none-any.whl"


def pack(kinds: Iterable[str]) -> Release:
    """The release for a host whose stacks have these kinds of stores. Made of the running checkout, or of the installed wheel."""
    wanted = sorted({EXTRAS[kind] for kind in kinds if kind in EXTRAS}) or ["core"]
    locks = {name: (_LOCKS / f"{name}.txt").read_text(encoding="utf-8") for name in wanted}
    version = metadata.version(_NAME)
    return Release(version, _wheel(version), locks)


def platforms(machine: str, libc: Sequence[int]) -> list[str]:
    """The tags of binary packages that run on such a host (PEP 600), newest first."""
    return [f"manylinux_{libc[0]}_{minor}_{machine}" for minor in range(libc[1], 4, -1)] + [f"manylinux2014_{machine}"]


def download(release: Release, python: Sequence[int], tags: Sequence[str], into: Path) -> None:
    """Fetch the locked packages for another machine, each with the hash that was locked. Raises RuntimeError with pip's own words."""
    into.mkdir(parents=True, exist_ok=True)
    for name, text in release.locks.items():
        (into / f"{name}.txt").write_text(text, encoding="utf-8")
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    words += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python[0]}.{python[1]}", f"--dest={into}"]
    words += [f"--platform={tag}" for tag in tags] + [f"--requirement={into / name}.txt" for name in release.locks]
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"pip ended with {done.returncode}")


def _wheel(version: str) -> dict[str, bytes]:
    info = f"{_NAME}-{version}.dist-info"
    files = dict(_engine())
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: {version}\nRequires-Python: >=3.11\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: storekeeper\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nstorekeeper = storekeeper.cli.main:run\n"
    files[f"{info}/RECORD"] = f"{_record(files)}{info}/RECORD,,\n".encode()
    return files


def _record(files: Mapping[str, bytes]) -> str:
    return "".join(f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in files.items())


def _engine() -> Iterator[tuple[str, bytes]]:
    """Everything of the package but what only the control side uses, sorted by path."""
    for path in sorted(_ENGINE.rglob("*")):
        inner = path.relative_to(_ENGINE)
        if path.is_file() and "__pycache__" not in inner.parts and inner.parts[0] not in _CONTROL_SIDE:
            yield f"{_NAME}/{inner.as_posix()}", path.read_bytes()


def _digest(content: bytes) -> str:
    """As a RECORD writes it: urlsafe base64 without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
