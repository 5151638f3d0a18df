"""Debian packages that are made here, and a signed index of them that a guest can reach."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.harness.guest import CHECKOUT, booted

SUITE = "lab"

# pgvector as Debian 13 has its source, built for Debian 12's PostgreSQL against the headers that belong to it.
_PGVECTOR = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive
mkdir -p /srv/build/lists/partial
cd /srv/build
mirror=$(sed -n 's/^deb \([^ ]*\) bookworm main$/\1/p' /etc/apt/sources.list)
echo "deb-src $mirror trixie main" >/srv/build/trixie.list
apt-get -qq update
apt-get -qq -y install --no-install-recommends gcc libc6-dev
apt-get -qq download postgresql-server-dev-15 libpq-dev
for each in *.deb; do dpkg -x "$each" headers; done
trixie="-o Dir::Etc::SourceList=/srv/build/trixie.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=/srv/build/lists"
apt-get -qq $trixie update
apt-get -qq $trixie source --download-only pgvector
tar -xf pgvector_*.orig.tar.gz --strip-components=1 --one-top-level=source
include=$PWD/headers/usr/include/postgresql
extension=$PWD/tree/usr/share/postgresql/15/extension
library=$PWD/tree/usr/lib/postgresql/15/lib
mkdir -p tree/DEBIAN "$extension" "$library"
cd source
version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" vector.control)
printf '%s\n' src/*.c | xargs -P 2 -n 4 gcc -O1 -w -fPIC -c -I"$include/15/server" -I"$include"
gcc -shared -o "$library/vector.so" *.o
cp vector.control sql/vector--*--*.sql "$extension"
cp sql/vector.sql "$extension/vector--$version.sql"
cd ..
cat >tree/DEBIAN/control <<X
Package: postgresql-15-pgvector
Version: $version-1
Architecture: $(dpkg --print-architecture)
Maintainer: Lab <lab@localhost>
Depends: postgresql-15, libc6
Description: vectors in PostgreSQL 15
X
dpkg-deb --root-owner-group -b tree /srv/pgvector.deb
"""


def pgvector(number: int) -> Path:
    """A package of pgvector for PostgreSQL 15 on Debian 12, built in a guest of this number unless it was before."""
    lab = CHECKOUT / ".cache/lab"
    built = lab / f"pgvector-{hashlib.sha256(_PGVECTOR.encode()).hexdigest()[:16]}.deb"
    if not built.exists():
        with booted("bookworm", name="pgvector", number=number) as guest:
            guest.run(_PGVECTOR)
            fresh = built.with_suffix(".new")
            shutil.copy(lab / "servers" / guest.name / "root/srv/pgvector.deb", fresh)
            fresh.rename(built)
    return built


def repacked(deb: Path, target: Path, version: str, spoiled: str | None = None) -> Path:
    """The same package with another version; of the file `spoiled` nothing is left but a program that fails."""
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place, "tree")
        _run("dpkg-deb", "-R", str(deb), str(tree))
        control = tree / "DEBIAN/control"
        lines = control.read_text(encoding="utf-8").splitlines()
        control.write_text(
            "".join(f"{f'Version: {version}' if line.startswith('Version:') else line}\n" for line in lines), encoding="utf-8"
        )
        if spoiled is not None:
            (tree / spoiled).write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
        _run("dpkg-deb", "-Zzstd", "-z1", "-b", str(tree), str(target))
    return target


def made(target: Path, name: str, **scripts: str) -> Path:
    """A package that holds nothing but its maintainer scripts."""
    with tempfile.TemporaryDirectory() as place:
        control = Path(place, "tree/DEBIAN")
        control.mkdir(parents=True)
        about = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Lab <lab@localhost>\nDescription: {name}\n"
        (control / "control").write_text(about, encoding="ascii")
        for script, text in scripts.items():
            (control / script).write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
            (control / script).chmod(0o755)
        _run("dpkg-deb", "--root-owner-group", "-b", str(control.parent), str(target))
    return target


class Key:
    """A key that signs, in a directory of its own."""

    def __init__(self, place: Path, name: str) -> None:
        self._home = tempfile.mkdtemp(prefix="gpg-")  # gpg's sockets need a short path
        self._gpg("--passphrase", "", "--quick-generate-key", f"{name} <{name}@localhost>", "ed25519", "sign", "never")
        self.public = place / f"{name}.asc"
        self.public.write_bytes(self._gpg("--armor", "--export"))
        self.private = place / f"{name}.private"
        self.private.write_bytes(self._gpg("--armor", "--export-secret-keys"))

    def sign(self, text: Path, signed: Path) -> None:
        self._gpg("--yes", "--output", str(signed), "--clearsign", str(text))

    def close(self) -> None:
        _run("gpgconf", "--homedir", self._home, "--kill", "all")
        shutil.rmtree(self._home, ignore_errors=True)

    def _gpg(self, *words: str) -> bytes:
        return _run("gpg", "--homedir", self._home, "--batch", "--quiet", "--pinentry-mode", "loopback", *words)


class Index:
    """A repository of packages as apt reads it (https://wiki.debian.org/DebianRepository/Format), below `place`."""

    def __init__(self, place: Path, key: Key) -> None:
        self._place = place
        self._key = key
        self._architecture = _run("dpkg", "--print-architecture").decode().strip()
        (place / "pool").mkdir(parents=True)

    def publish(self, *debs: Path) -> None:
        """Add packages to those that are there, and sign what there is."""
        for deb in debs:
            shutil.copy(deb, self._place / "pool")
        entries = "\n".join(map(self._entry, sorted((self._place / "pool").iterdir())))
        name = f"main/binary-{self._architecture}/Packages"
        packages = self._place / "dists" / SUITE / name
        packages.parent.mkdir(parents=True, exist_ok=True)
        packages.write_text(entries, encoding="utf-8")
        release = self._place / "dists" / SUITE / "Release"
        release.write_text(
            f"Suite: {SUITE}\nCodename: {SUITE}\nComponents: main\nArchitectures: {self._architecture}\nDate: {formatdate(usegmt=True)}\n"
            f"SHA256:\n {hashlib.sha256(entries.encode()).hexdigest()} {len(entries.encode())} {name}\n",
            encoding="ascii",
        )
        self._key.sign(release, release.with_name("InRelease"))

    def _entry(self, deb: Path) -> str:
        control = _run("dpkg-deb", "-f", str(deb)).decode().rstrip()
        content = deb.read_bytes()
        return f"{control}\nFilename: pool/{deb.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"

    @contextmanager
    def served(self, address: str) -> Iterator[str]:
        """Reachable over HTTP at an address of this machine for as long as the block lasts; gives the URI."""
        with ThreadingHTTPServer((address, 0), partial(_Silent, directory=str(self._place))) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield f"http://{address}:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """pytest's output is not this server's."""


def _run(*words: str) -> bytes:
    return subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
