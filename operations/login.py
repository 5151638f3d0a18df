"""How pyinfra logs in to hosts: only to those whose key is known, with a sentence where it is not, and nobody is asked for a password."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pyinfra.api import Host
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors import util
from pyinfra.connectors.ssh import SSHConnector

STRICT = "ssh_strict_host_key_checking"


def careful() -> None:
    """For `config.py`: hosts are known by their keys unless an inventory says otherwise, and no run waits for somebody to type.

    pyinfra's own default believes whoever answers first, and where sudo wants a password it asks for one in the middle of a run.
    """
    SSHConnector.data_meta[STRICT].default = "yes"
    setattr(SSHConnector, "connect", _told(SSHConnector.connect))  # noqa: B010 mypy knows it as a method
    setattr(util, "getpass", lambda _: "")  # noqa: B010 a name that the module imports: without a password the command fails


def _told(connect: Callable[[SSHConnector], None]) -> Callable[[SSHConnector], None]:
    def connect_or_tell(connector: SSHConnector) -> None:
        try:
            connect(connector)
        except ConnectError as error:
            if (why := distrusted(connector.host, str(error))) is None:
                raise
            raise ConnectError(f"nothing is done on {connector.host.name}: {why}") from error

    return connect_or_tell


def distrusted(target: Host, error: str) -> str | None:
    """Why a host is not known, and what to do, by what pyinfra says of it; None where that is not why the connection failed."""
    unknown = re.search(r"No host key for (\S+) found", error)
    changed = re.search(r"Host key for (\S+) does not match", error)
    found = unknown or changed
    if found is None:
        return None
    entry, port = found[1], str(target.data.get("ssh_port", 22))
    if port != "22" and not entry.startswith("["):
        entry = f"[{entry}]:{port}"
    keys = Path(_known_hosts(target))
    if (broken := _unreadable(keys)) is not None:
        return f"{keys} cannot be read ({broken}), and hosts are known by their keys in it: mend it"
    if unknown:
        return f"{keys} has no key of {entry}: ask whoever runs it for its key, and add that"
    then = f"only then ssh-keygen -R '{entry}' -f {keys} and add the new one"
    return f"its key is not the one of {entry} in {keys}: ask whoever runs it whether it was changed, {then}"


def _known_hosts(target: Host) -> str:
    client = getattr(target.connector, "client", None)
    return getattr(client, "_host_keys_filename", None) or "~/.ssh/known_hosts"


def _unreadable(file: Path) -> str | None:
    try:
        file.read_text(encoding="utf-8")
    except OSError as error:
        return error.strerror or "it fails"
    except UnicodeDecodeError:
        return "it is no text"
    return None
